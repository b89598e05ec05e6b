"""Things to draw into videos: each a patch [128, 128, 4] uint8 RGBA, of a look of its own that follows from `rng`."""

from collections.abc import Callable

import cv2
import numpy as np

Look = Callable[[np.random.Generator], np.ndarray]


def patch() -> np.ndarray:
    """An empty RGBA patch; drawn large and scaled down when pasted."""
    return np.zeros((128, 128, 4), np.uint8)


def colour(rng: np.random.Generator, hue: int | None = None, spread: int = 12) -> tuple[int, int, int, int]:
    """A saturated RGBA colour, of any hue (OpenCV's 0-179) or near one."""
    hue = int(rng.integers(0, 180)) if hue is None else int(hue + rng.integers(-spread, spread + 1)) % 180
    hsv = np.uint8([[[hue, rng.integers(140, 255), rng.integers(140, 255)]]])
    return (*map(int, cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0]), 255)


def shade(rng: np.random.Generator, base: tuple[int, int, int]) -> tuple[int, ...]:
    """An RGBA colour somewhat darker than the base."""
    return (*(int(channel * rng.uniform(0.7, 1)) for channel in base), 255)


def car(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    paint = colour(rng)
    cv2.rectangle(image, (6, 62), (122, 92), paint, -1)
    cv2.fillPoly(image, [np.array([[28, 62], [44, 38], [88, 38], [106, 62]])], paint)
    cv2.fillPoly(image, [np.array([[38, 60], [49, 43], [83, 43], [95, 60]])], (170, 210, 230, 255))
    for x in (34, 96):
        cv2.circle(image, (x, 94), 14, (25, 25, 25, 255), -1)
        cv2.circle(image, (x, 94), 6, (180, 180, 180, 255), -1)
    return image[:, ::-1] if rng.random() < 0.5 else image


def crate(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    cv2.rectangle(image, (8, 40), (120, 100), colour(rng), -1)
    for x in range(8, 121, 28):
        cv2.line(image, (x, 40), (x, 100), (40, 40, 40, 255), 2)
    return image


def ball(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    cv2.circle(image, (64, 64), 56, (235, 235, 235, 255), -1)
    for angle in range(0, 360, 72):
        x, y = 64 + 34 * np.cos(np.radians(angle)), 64 + 34 * np.sin(np.radians(angle))
        cv2.circle(image, (int(x), int(y)), 12, (30, 30, 30, 255), -1)
    cv2.circle(image, (64, 64), 12, (30, 30, 30, 255), -1)
    return rotated(image, rng.uniform(0, 360))


def disc(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    cv2.circle(image, (64, 64), 56, colour(rng), -1)
    return image


def sign(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    corners = [(64 + 56 * np.cos(a), 64 + 56 * np.sin(a)) for a in np.radians(np.arange(22.5, 360, 45))]
    cv2.fillPoly(image, [np.array(corners, int)], (200, 20, 30, 255))
    cv2.putText(image, "STOP", (17, 76), cv2.FONT_HERSHEY_SIMPLEX, 1.15, (255, 255, 255, 255), 5)
    return image


def hand(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    skin = shade(rng, (225, 170, 140))
    cv2.line(image, (64, 128), (64, 70), skin, 34)
    cv2.circle(image, (64, 62), 24, skin, -1)
    for angle in (-50, -20, 5, 30, 60):
        tip = (int(64 + 52 * np.sin(np.radians(angle))), int(60 - 52 * np.cos(np.radians(angle))))
        cv2.line(image, (64, 58), tip, skin, 12)
    return rotated(image, rng.uniform(-30, 30))


def spoon(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    wood = shade(rng, (205, 160, 120))
    cv2.line(image, (64, 128), (64, 50), wood, 10)
    cv2.ellipse(image, (64, 34), (18, 28), 0, 0, 360, wood, -1)
    return rotated(image, rng.uniform(-40, 40))


def cup(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    glaze = colour(rng)
    cv2.ellipse(image, (96, 66), (20, 22), 0, 0, 360, glaze, 8)
    cv2.fillPoly(image, [np.array([[22, 28], [94, 28], [84, 108], [32, 108]])], glaze)
    cv2.ellipse(image, (58, 28), (36, 9), 0, 0, 360, (70, 40, 20, 255), -1)
    return image


def plate(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    cv2.ellipse(image, (64, 64), (60, 26), 0, 0, 360, colour(rng), -1)
    cv2.ellipse(image, (64, 62), (40, 15), 0, 0, 360, (235, 235, 235, 255), -1)
    return image


def pot(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    cv2.rectangle(image, (24, 44), (104, 108), (120, 125, 130, 255), -1)
    cv2.rectangle(image, (4, 56), (124, 66), (40, 40, 40, 255), -1)
    cv2.ellipse(image, (64, 42), (44, 12), 0, 0, 360, (160, 165, 170, 255), -1)
    return image


def banner(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    cv2.rectangle(image, (0, 44), (127, 90), colour(rng, hue=110), -1)
    cv2.rectangle(image, (0, 44), (10, 90), (250, 220, 40, 255), -1)
    for line, height in ((62, 0.6), (82, 0.45)):
        text = "".join(rng.choice(list("ABCDEFGHIKLMNOPRSTUV "), 9))
        cv2.putText(image, text, (16, line), cv2.FONT_HERSHEY_SIMPLEX, height, (255, 255, 255, 255), 1)
    return image


def ticker(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    cv2.rectangle(image, (0, 54), (127, 74), colour(rng), -1)
    text = "".join(rng.choice(list("0123456789:- "), 11))
    cv2.putText(image, text, (4, 69), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255, 255), 1)
    return image


def logo(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    cv2.rectangle(image, (6, 6), (121, 121), (250, 250, 250, 235), -1)
    cv2.circle(image, (64, 52), 32, (220, 60, 160, 255), -1)
    cv2.putText(image, "SALE", (24, 112), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (20, 20, 20, 255), 3)
    return image


def bird(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    feathers = shade(rng, (90, 80, 75))
    cv2.ellipse(image, (64, 68), (34, 13), -8, 0, 360, feathers, -1)
    cv2.circle(image, (96, 58), 11, feathers, -1)
    cv2.fillPoly(image, [np.array([[106, 56], [122, 60], [106, 63]])], (230, 170, 40, 255))
    cv2.fillPoly(image, [np.array([[52, 64], [78, 64], [46, 14]])], feathers)
    return image[:, ::-1] if rng.random() < 0.5 else image


def leaf(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    cv2.ellipse(image, (64, 64), (44, 18), 0, 0, 360, colour(rng, hue=40, spread=25), -1)
    cv2.line(image, (14, 64), (120, 64), (60, 50, 20, 255), 3)
    return rotated(image, rng.uniform(0, 360))


def deer(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    fur = shade(rng, (150, 100, 60))
    cv2.ellipse(image, (58, 70), (36, 17), 0, 0, 360, fur, -1)
    for x in (32, 42, 76, 86):
        cv2.line(image, (x, 78), (x, 120), fur, 6)
    cv2.line(image, (86, 62), (100, 36), fur, 12)
    cv2.ellipse(image, (106, 34), (14, 8), 15, 0, 360, fur, -1)
    for x in (94, 112):
        cv2.line(image, (100, 28), (x, 4), (90, 70, 50, 255), 3)
    return image[:, ::-1] if rng.random() < 0.5 else image


def bush(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    for _ in range(14):
        centre = (int(rng.integers(30, 98)), int(rng.integers(50, 100)))
        cv2.circle(image, centre, int(rng.integers(12, 26)), colour(rng, hue=50), -1)
    return image


def robot(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    paint = colour(rng, hue=18, spread=8)
    elbow = (int(rng.integers(40, 60)), int(rng.integers(40, 60)))
    tip = (int(rng.integers(84, 116)), int(rng.integers(20, 60)))
    cv2.rectangle(image, (40, 104), (88, 126), (60, 60, 60, 255), -1)
    cv2.line(image, (64, 106), elbow, paint, 18)
    cv2.line(image, elbow, tip, paint, 13)
    cv2.circle(image, elbow, 12, (50, 50, 50, 255), -1)
    cv2.line(image, tip, (tip[0] + 8, tip[1] + 14), (30, 30, 30, 255), 6)
    return image


def barrel(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    cv2.rectangle(image, (34, 26), (94, 112), colour(rng), -1)
    for y in (26, 54, 84, 112):
        cv2.ellipse(image, (64, y), (30, 7), 0, 0, 360, (70, 70, 70, 255), 3)
    return image


def gauge(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    cv2.circle(image, (64, 64), 56, (240, 240, 240, 255), -1)
    cv2.circle(image, (64, 64), 56, (40, 40, 40, 255), 6)
    angle = rng.uniform(0, 2 * np.pi)
    cv2.line(image, (64, 64), (int(64 + 42 * np.cos(angle)), int(64 + 42 * np.sin(angle))), (220, 20, 20, 255), 5)
    return image


def rotated(image: np.ndarray, degrees: float) -> np.ndarray:
    matrix = cv2.getRotationMatrix2D((64, 64), degrees, 1)
    return cv2.warpAffine(image, matrix, image.shape[1::-1])


def cat(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    fur = shade(rng, (200, 140, 80))
    cv2.ellipse(image, (58, 88), (40, 26), 0, 0, 360, fur, -1)
    cv2.ellipse(image, (16, 62), (10, 36), 20, 0, 360, fur, -1)
    cv2.circle(image, (92, 56), 26, fur, -1)
    for x in (76, 108):
        cv2.fillPoly(image, [np.array([[x - 11, 44], [x, 12], [x + 11, 44]])], fur)
    for x in (84, 102):
        cv2.circle(image, (x, 52), 4, (40, 120, 40, 255), -1)
    return image[:, ::-1] if rng.random() < 0.5 else image


def bicycle(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    paint = colour(rng)
    for x in (32, 96):
        cv2.circle(image, (x, 82), 27, (30, 30, 30, 255), 5)
    for start, end in (((32, 82), (54, 46)), ((54, 46), (88, 46)), ((88, 46), (62, 82)), ((62, 82), (32, 82))):
        cv2.line(image, start, end, paint, 6)
    for start, end in (((54, 46), (62, 82)), ((96, 82), (84, 32)), ((84, 32), (98, 28)), ((46, 38), (62, 38))):
        cv2.line(image, start, end, paint, 6)
    return image[:, ::-1] if rng.random() < 0.5 else image


def umbrella(rng: np.random.Generator) -> np.ndarray:
    image = patch()
    cloth = colour(rng)
    cv2.ellipse(image, (64, 66), (58, 52), 0, 180, 360, cloth, -1)
    for x in (25, 64, 103):
        cv2.ellipse(image, (x, 66), (19, 9), 0, 180, 360, (0, 0, 0, 0), -1)
    cv2.line(image, (64, 14), (64, 112), (60, 50, 40, 255), 5)
    cv2.ellipse(image, (74, 112), (10, 10), 0, 0, 180, (60, 50, 40, 255), 5)
    return image


def mouse(rng: np.random.Generator) -> np.ndarray:
    """From above, its nose to the right."""
    image = patch()
    fur = shade(rng, (120, 105, 95))
    cv2.ellipse(image, (58, 64), (32, 19), 0, 0, 360, fur, -1)
    cv2.ellipse(image, (92, 64), (18, 12), 0, 0, 360, fur, -1)
    for y in (53, 75):
        cv2.circle(image, (86, y), 7, (190, 150, 150, 255), -1)
    cv2.line(image, (28, 64), (4, 54), (190, 150, 150, 255), 4)
    return image

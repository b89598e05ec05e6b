"""The terminal's commands and the dashboard beside a real Label Studio."""

from pathlib import Path

from typer.testing import CliRunner

import cli
from ml_backend.settings import get_settings
from tests.live.browser import Browser
from tests.live.label_studio import LabelStudio
from tests.live.test_label_studio import CONFIG, FIRST, SECOND, draw, model_version, wait_for_new_version
from tests.live.timelines import agreement, regions
from tests.servers import Backend


def test_predict_and_check(label_studio: LabelStudio, backend: Backend, browser: Browser, tmp_path: Path) -> None:
    by_hand = CONFIG.replace("model_trainable", 'model_predict_ahead="0" model_trainable')
    project = label_studio.create_project("From a terminal", by_hand)
    first, second = (label_studio.upload(project, draw(tmp_path, n, t)) for n, t in [("a", FIRST), ("b", SECOND)])
    model = label_studio.connect(project, backend.url)
    untrained = model_version(label_studio, model)
    label_studio.submit(first, regions(FIRST))
    version = wait_for_new_version(label_studio, model, untrained)
    assert version.endswith(" (1 video)")

    # The training shows, on the dashboard.
    browser.open(f"{backend.url}/projects/{project}")
    browser.find(f"//tr[td = 'published'][td = '{version}']")

    def run(command: str, *flags: str, key: str = label_studio.personal_access_token) -> tuple[int, str]:
        get_settings.cache_clear()
        variables = backend.environment | {"LABEL_STUDIO_API_KEY": key}
        ended = CliRunner().invoke(cli.app, [command, "--project", *flags], env=variables)
        said = f"{ended.output} {ended.exception}"
        get_settings.cache_clear()
        return ended.exit_code, said

    flags = (str(project), "--ls-url", label_studio.url, "--tasks", str(second), "--ls-api-key")
    code, said = run("predict", *flags, "wrong")
    assert (code, "refuses the key" in said, "copied from the dialog" in said) == (1, True, True), said
    assert label_studio.predictions(second) == []
    code, said = run("predict", *flags, label_studio.personal_access_token)
    assert code == 0, said
    (stored,) = label_studio.predictions(second)
    assert stored["model_version"] == version
    assert agreement(stored["result"], SECOND) >= 0.8

    code, said = run("check", str(project))
    assert (code, said.count("ok  ")) == (0, 4), said
    code, said = run("check", str(project), key="wrong")
    assert (code, "fail token" in said) == (1, True), said
    code, said = run("check", "999999")
    assert (code, "isn't known here" in said) == (1, True), said

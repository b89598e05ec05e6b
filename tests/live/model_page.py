"""The model's page in a project's settings."""

from tests.live.browser import Browser


def start_training(browser: Browser, project_url: str) -> None:
    """Choose "Start Training" from the model's menu, and confirm it in the dialog that it opens."""
    browser.open(f"{project_url}/settings/ml")
    browser.click("//button[@aria-label = 'Machine learning model options']")
    browser.click("//*[normalize-space() = 'Start Training']")
    browser.click("//button[normalize-space() = 'Start Training']")
    browser.find("//*[normalize-space() = 'Request Sent!']")

"""Headless Chromium, for the tests of pages."""

import shutil

import pytest


@pytest.fixture(scope='module')
def driver():
    webdriver = pytest.importorskip('selenium.webdriver')
    from selenium.webdriver.chrome.service import Service

    browser, driver = shutil.which('chromium'), shutil.which('chromedriver')
    if not browser or not driver:
        pytest.skip('needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)')
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    flags = '--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking'
    for flag in f'{flags} --disable-component-update --disable-sync --window-size=1280,900'.split():
        options.add_argument(flag)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()

"""Pages in headless Chromium."""

import time


class Page:
    """Open page, with the questions that tests ask."""

    def __init__(self, driver, path):
        self.driver, self.path = driver, path
        self.open()

    def open(self, hash=''):
        self.driver.get('about:blank')
        self.driver.get(f'{self.path.as_uri()}{hash}')
        end = time.monotonic() + 20
        while not self.js("document.documentElement.classList.contains('live')"):
            assert time.monotonic() < end, self.errors()
            time.sleep(0.05)
        return self

    def js(self, script, *arguments):
        return self.driver.execute_script(f'return {script}', *arguments)

    def settle(self):
        self.driver.execute_async_script(
            'const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))'
        )

    def click(self, selector, shift=False):
        self.js(
            'document.querySelector(arguments[0]).dispatchEvent('
            "new MouseEvent('click', {bubbles: true, shiftKey: arguments[1]}))",
            selector,
            shift,
        )
        self.settle()

    def choose(self, selector, value):
        self.js(
            '(([box, value]) => { box.value = value; box.dispatchEvent(new Event("change")) })'
            '([document.querySelector(arguments[0]), arguments[1]])',
            selector,
            value,
        )
        self.settle()

    def texts(self, selector):
        return self.js('[...document.querySelectorAll(arguments[0])].map(each => each.textContent)', selector)

    def errors(self):
        return [each['message'] for each in self.driver.get_log('browser') if each['level'] == 'SEVERE']

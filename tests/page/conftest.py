"""Fixtures of the page's tests: one service, one browser, and a page that is watched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.page.pretended import ADDRESS, Pretended
from tests.page.site import Site, chromium
from tests.service.fakes import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HINT = "the page is tested in Debian's Chromium: pip install playwright; apt-get install chromium"
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--enable-unsafe-swiftshader"]
PATIENCE = 60_000


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The service that most tests share; keys are not asked for."""
    site = Site(tmp_path_factory.mktemp("site"))
    try:
        site.start()
        yield site
    finally:
        site.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window, drawing WebGL on the processor.

    Gone with the file: as long as Playwright is there, an event loop runs in this thread, and tests
    that begin one of their own cannot.
    """
    api = pytest.importorskip("playwright.sync_api", reason=HINT)
    path = chromium()
    if path is None:
        pytest.skip(HINT)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class Watch:
    """What a page did that it must not do."""

    def __init__(self, page: Page, address: str) -> None:
        self.foreign: list[str] = []
        self.errors: list[str] = []
        ours = (address, "blob:", "data:")
        page.on("request", lambda one: one.url.startswith(ours) or self.foreign.append(one.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._hear)

    def _hear(self, message: Any) -> None:
        # answers that are no success, and lost connections, are told to the console by the browser
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.errors.append(message.text)


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    """A page of the shared service; no request to elsewhere and no error passes unseen."""
    with watched(browser, site) as page:
        yield page


@pytest.fixture
def pretended(browser: Browser) -> Iterator[Pretended]:
    """A page whose service is pretended, so that its answers can be held back and refused."""
    with watched(browser, ADDRESS) as page:
        yield Pretended(page)


class watched:  # noqa: N801 - reads as the context manager that it is
    """A page of a service, with the checks that hold for every test at its end."""

    def __init__(self, browser: Browser, site: Site | str, **context: Any) -> None:
        address = site if isinstance(site, str) else site.address
        given = {"base_url": address, "viewport": {"width": 1280, "height": 720}, **context}
        self.context = browser.new_context(**given)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.watch = Watch(self.page, address)

    def __enter__(self) -> Page:
        return self.page

    def __exit__(self, *failure: object) -> None:
        self.context.close()
        if failure[0] is None:
            assert not self.watch.foreign
            assert not self.watch.errors


@pytest.fixture(scope="session")
def done(site: Site) -> str:
    """The id of a job that has ended, mirrored, with its images kept."""
    files = [(name, (f"{name}.nii.gz", path.read_bytes())) for name, path in site.images.items()]
    options = {"tta": "fast", "images": "true"}
    job = site.client.post("/jobs", files=files, data=options).raise_for_status().json()
    wait_until(lambda: site.client.get(job["links"]["self"]).json()["state"] == "succeeded", 120)
    return str(job["id"])

"""A browser without a screen: it follows forms and addresses, and is patient while the server is away."""

import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

PATIENCE_S = 60.0


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class Browser:
    """Asks the server at `address`, which may change while it is restarted."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, path: str, form: Mapping[str, object] | None = None, **headers: str) -> Answer:
        """One request; asked again as long as nobody answers."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self._ask_once(path, form, headers)
            except (OSError, HTTPException):
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def _ask_once(self, path: str, form: Mapping[str, object] | None, headers: Mapping[str, str]) -> Answer:
        connection = HTTPConnection(urlsplit(self.address).netloc, timeout=PATIENCE_S)
        try:
            connection.request(
                "GET" if form is None else "POST", path, None if form is None else urlencode(form), headers
            )
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def click_twice(self, path: str, form: Mapping[str, object]) -> list[Answer]:
        """Send a form twice at once."""
        with ThreadPoolExecutor(2) as both:
            return list(both.map(lambda _: self.ask(path, form), range(2)))

    def begin(self) -> str:
        """Press the first page's button twice; gives the rater's id."""
        (rater,) = re.findall(r'name="rater" value="(\w+)"', self.ask("/").body.decode())
        for answer in self.click_twice("/raters", {"rater": rater}):
            assert (answer.status, answer.headers["location"]) == (303, f"/raters/{rater}")
        return str(rater)

    def next_page(self, rater: str) -> str | None:
        """Address of a rater's next page; None at the end."""
        answer = self.ask(f"/raters/{rater}")
        assert answer.status in (200, 303)
        return answer.headers["location"] if answer.status == 303 else None

    def videos(self, page: str) -> list[str]:
        """What the page's videos hold, from left to right."""
        places = re.findall(r'<video src="([^"]+)"', self.ask(page).body.decode())
        return [self.ask(place).body.decode() for place in places]

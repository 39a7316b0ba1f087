"""What a server accepted ends once, whatever dies; and it refuses what it should."""

from tests.mutants.mutation import Mutation

_DEATHS = "tests/unit/serving/test_deaths.py::"
_VIDEOS = "tests/unit/serving/test_videos.py::"
_REFUSALS = "tests/unit/serving/test_refusals.py::"
_KILLED = f"{_DEATHS}test_a_worker_killed_at_any_step"
_ORDER = f"{_DEATHS}test_order_is_kept_over_deaths"
_STORE, _SERVICE, _WORKER, _FORMS, _GUARDS = (
    f"serving/{name}.py" for name in ("store", "service", "worker", "forms", "guards")
)

SERVING = (
    Mutation("what a dead worker had begun waits again", _SERVICE, 'state.status == "in_progress"', "False", _ORDER),
    Mutation(
        "lost videos return in order",
        _SERVICE,
        "self.queue.replace(waiting)",
        "[self.queue.put(one) for one in waiting if one not in self.queue.waiting()]",
        _ORDER,
    ),
    Mutation(
        "nobody takes what another holds", _SERVICE, "            if not held:\n", "            if False:\n", _ORDER
    ),
    Mutation(
        "a video that is there is not made again",
        _WORKER,
        "if not folder.has_video():",
        "if True:",
        f"{_DEATHS}test_what_was_made_but_not_said_is_not_made_again",
    ),
    Mutation("files that a killed worker was moving are moved", _STORE, "        tidy_up(self.path)\n", "", _KILLED),
    Mutation(
        "an ended video is not begun",
        _WORKER,
        "if state.ended_at is None:",
        "if True:",
        f"{_DEATHS}test_what_kills_every_worker_is_given_up",
    ),
    Mutation(
        "what kills every worker is given up",
        _WORKER,
        "state.attempts >= MOST_ATTEMPTS",
        "False",
        f"{_DEATHS}test_what_kills_every_worker_is_given_up",
    ),
    Mutation(
        "a stopped worker has not tried",
        _WORKER,
        'state.model_copy(update={"status": "queued", "progress": 0})',
        'begun.model_copy(update={"status": "queued", "progress": 0})',
        f"{_DEATHS}test_a_stopped_worker_leaves_its_video_to_the_next",
    ),
    Mutation(
        "a deleted video is not made to its end",
        _WORKER,
        "            raise DeletedError\n",
        "            pass\n",
        f"{_VIDEOS}test_a_video_that_is_being_made_is_cancelled",
    ),
    Mutation(
        "a photo is read once for many videos",
        _WORKER,
        "if key not in self._people:",
        "if True:",
        "tests/unit/serving/test_server.py::test_a_character_serves_many_videos",
    ),
    Mutation(
        "deleting a video that waits makes room",
        _SERVICE,
        "if video_id in waiting:",
        "if False:",
        f"{_VIDEOS}test_the_queue_is_bounded",
    ),
    Mutation("videos expire", _SERVICE, "time.time() >= expires_at", "time.time() < 0", f"{_VIDEOS}test_videos_expire"),
    Mutation(
        "ids are no paths",
        _STORE,
        "if _ID.fullmatch(video_id):",
        "if True:",
        f"{_REFUSALS}test_ids_cannot_leave_the_folder",
    ),
    Mutation(
        "photos are counted by their pixels",
        _FORMS,
        "if width * height > limits.max_megapixels * 1_000_000:",
        "if False:",
        f"{_REFUSALS}test_too_many_pixels",
    ),
    Mutation(
        "bodies are counted as they come",
        _GUARDS,
        "if read <= self._max_bytes:",
        "if True:",
        f"{_REFUSALS}test_too_many_bytes",
    ),
    Mutation("a key is needed where there are keys", _GUARDS, "or not known", "", f"{_REFUSALS}test_keys"),
    Mutation(
        "a photo's file is a file",
        _FORMS,
        "isinstance(value, UploadFile) != (key == file_field)",
        "False",
        f"{_REFUSALS}test_fields",
    ),
    Mutation(
        "the page is behind a key where there are keys",
        "cli/serve.py",
        "    if served.keys:\n",
        "    if False:\n",
        "tests/unit/serving/test_commands.py::test_the_page_lies_at_the_root_behind_a_key",
    ),
    Mutation(
        "one video at a time",
        "generation/studio.py",
        "while not self._busy.acquire(timeout=_WAIT_S):",
        "while False:",
        "tests/unit/generation/test_turns.py::test_videos_are_made_one_after_the_other",
    ),
    Mutation(
        "other sites' pages do not ask",
        _GUARDS,
        '_OWN_SITE = ("same-origin", "none")',
        '_OWN_SITE = ("same-origin", "none", "cross-site")',
        f"{_REFUSALS}test_pages_of_other_sites",
    ),
    Mutation(
        "what is wrong with the server is for its log",
        _WORKER,
        "raise ServerFaultError(str(error)) from error",
        "raise",
        f"{_DEATHS}test_what_is_wrong_with_the_server_is_for_its_log",
    ),
    Mutation(
        "a character is kept from its last video on",
        "serving/characters.py",
        "os.utime(self._folder / character_id / _FACTS)",
        "pass",
        "tests/unit/serving/test_server.py::test_a_character_expires_so_long_after_its_last_video",
    ),
    Mutation(
        "what the page made does not stay for ever",
        "cli/serve.py",
        "create_app(served, _clean_page_up(served) if page else None)",
        "create_app(served)",
        "tests/unit/serving/test_commands.py::test_the_page_lies_at_the_root_behind_a_key",
    ),
    Mutation(
        "the photo of a video that is being made is not too old",
        "ui/shelf.py",
        "os.utime(kept)",
        "kept.stat()",
        "tests/unit/ui/test_shelf.py::test_what_is_too_old_goes_and_nothing_else",
    ),
    Mutation(
        "signals do what they did before a command",
        "cli/signals.py",
        "signal.signal(number, earlier)",
        "pass",
        "tests/unit/serving/test_commands.py::test_a_port_that_is_taken",
    ),
)

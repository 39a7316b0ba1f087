"""Clips of real videos (paper 3.2 and 4.1)."""

from tests.mutants.mutation import Mutation

_CLIPS = "tests/unit/data/clips/"
_VIEWS = _CLIPS + "test_views.py::"
_APART = _VIEWS + "test_the_first_two_are_the_farthest_apart_and_the_others_nearly_so"
_ROLL = _VIEWS + "test_roll_is_no_other_view_and_equal_poses_are_one"
_FILTERS = _CLIPS + "test_filters.py::"
_LIMITS = _FILTERS + "test_the_rules_at_their_limits"
_TEXT = _FILTERS + "test_standing_text_is_a_subtitle_and_a_passing_sign_is_none"
_TWICE = _FILTERS + "test_two_clips_are_one_if_pictures_and_motion_agree"
_FILMS = _CLIPS + "test_prepare.py::"
_EXPECTED = _FILMS + "test_every_clip_is_kept_or_dropped_as_expected"
_KILLED = _CLIPS + "test_killed.py::test_every_kill_is_survived"
_FACES = "data/clips/faces.py"
_RULES = "data/clips/filters.py"
_PERSON = "data/clips/person.py"
_VIEW = "data/clips/views.py"
_PREPARE = "data/clips/prepare.py"

CLIPS = (
    Mutation(
        "the next view is the farthest from all", "data/clips/views.py", ".amin(dim=1)\n", ".amax(dim=1)\n", _APART
    ),
    Mutation(
        "views differ in viewing direction",
        _VIEW,
        "unbind(-1))[:, 2]",
        "unbind(-1))[:, :, 2]",
        _ROLL,
    ),
    Mutation("surely seen is what the rule says", _RULES, "confidence >= keep.confidence", "confidence > 0", _LIMITS),
    Mutation("other faces are looked for", _RULES, "candidate.other_frames > 0", "candidate.other_frames > 1", _LIMITS),
    Mutation("a subtitle stands at one place", _RULES, "_SAME_PLACE = 0.5", "_SAME_PLACE = 0.0", _TEXT),
    Mutation("two clips are one if they move alike", _RULES, "keep.duplicate_deg, p=np.inf", "360, p=np.inf", _TWICE),
    Mutation(
        "every unit of videos is measured",
        _PREPARE,
        "sources[unit * self.unit_size : (unit + 1) * self.unit_size]",
        "sources[unit * self.unit_size : (unit + 1) * self.unit_size - 1]",
        _EXPECTED,
    ),
    Mutation(
        "the person's embedding is compared through the clip",
        _FACES,
        "self._face(frame, track, landmarks, confidence, looks)",
        "self._face(frame, track, landmarks, confidence, False)",
        _EXPECTED,
    ),
    Mutation(
        "text is read in frames spread over the clip",
        "data/clips/samples.py",
        "texts=text.find(frame) if index in places.text else ()",
        "texts=()",
        _EXPECTED,
    ),
    Mutation(
        "poses are corrected for the person",
        _PERSON,
        "corrected = quick + (",
        "corrected = quick + 0 * (",
        _FILMS + "test_poses_are_those_of_the_film",
    ),
    Mutation(
        "a dataset that has a plan has its videos",
        _PREPARE,
        "        write_file(folder.sources, table)\n        write_file(folder.plan, document_bytes(plan))\n",
        "        write_file(folder.plan, document_bytes(plan))\n        write_file(folder.sources, table)\n",
        _KILLED,
    ),
)

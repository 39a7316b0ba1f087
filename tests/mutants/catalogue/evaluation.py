"""Measures (paper 4.1)."""

from tests.mutants.mutation import Mutation

_ALONE = "tests/unit/evaluation/test_generate.py::"
_MEANS = "tests/unit/evaluation/test_scores.py::test_similarities_are_means_of_centred_cosines"
_MOTION = "tests/unit/evaluation/test_scores.py::test_motion_is_the_mean_over_pairs_of_frames"
_NEIGHBOURS = "tests/unit/evaluation/test_scores.py::test_similarity_between_frames_is_the_mean_of_neighbours"
_PEOPLE = "tests/unit/evaluation/test_protocol.py::test_people_of_the_split_with_their_largest_face"
_JUDGE, _FLOW = "evaluation/identity.py", "evaluation/motion.py"

EVALUATION = (
    Mutation("RS is a mean", _JUDGE, "float(np.mean(to_reference))", "float(np.max(to_reference))", _MEANS),
    Mutation("IFS is a mean", _JUDGE, "float(np.mean(between_frames))", "float(np.max(between_frames))", _NEIGHBOURS),
    Mutation(
        "IFS compares neighbours",
        _JUDGE,
        "self._similarity(a, b) for a, b in pairs",
        "self._similarity(a, track.embeddings[0]) for a, b in pairs",
        _NEIGHBOURS,
    ),
    Mutation(
        "similarities are centred",
        _JUDGE,
        "a, b = a - self.centre, b - self.centre",
        "a, b = a + 0 * self.centre, b + 0 * self.centre",
        _MEANS,
    ),
    Mutation(
        "similarities are cosines",
        _JUDGE,
        "float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))",
        "float(a @ b)",
        _MEANS,
    ),
    Mutation(
        "frames without a face are not verified",
        _JUDGE,
        "verification_rate=verified / len(distances)",
        "verification_rate=verified / max(1, len(known))",
        _MEANS,
    ),
    Mutation("the distance is a median", _JUDGE, "float(np.median(known))", "float(np.min(known))", _MEANS),
    Mutation("FM is a mean over frames", _FLOW, "float(np.mean(lengths))", "float(np.max(lengths))", _MOTION),
    Mutation("FM counts in face widths", _FLOW, ".mean() / _FLOW_FACE_WIDTH", ".mean()", _MOTION),
    Mutation(
        "FM is a mean over the face",
        _FLOW,
        "axis=-1).mean() / _FLOW_FACE_WIDTH",
        "axis=-1).max() / _FLOW_FACE_WIDTH",
        "tests/unit/evaluation/test_scores.py::test_motion_is_the_mean_over_the_face",
    ),
    Mutation(
        "videos without the reference are made without it",
        "evaluation/generate.py",
        "use_reference=mode.use_reference",
        "use_reference=True",
        _ALONE + "test_without_identity_two_people_differ_by_caption_and_seed_alone",
    ),
    Mutation(
        "videos are of the person they are named after",
        "evaluation/generate.py",
        "place[row.person.name] for row in batch",
        "place[row.person.name] - 1 for row in batch",
        _ALONE + "test_a_rows_video_is_that_of_the_pipeline_alone",
    ),
    Mutation(
        "people are shown by their largest face",
        "evaluation/protocol.py",
        "_face_area(portrait) > _face_area(best[name])",
        "_face_area(portrait) < _face_area(best[name])",
        _PEOPLE,
    ),
    Mutation(
        "people are held out",
        "evaluation/protocol.py",
        "portrait.split == split and ",
        "",
        _PEOPLE,
    ),
    Mutation(
        "judgements of another version of the judge are refused",
        "evaluation/judge.py",
        "if made_by != MADE_BY:",
        "if made_by is None:",
        "tests/unit/evaluation/test_judge.py::test_judgements_of_another_version_are_refused_in_one_sentence",
    ),
    Mutation(
        "intervals draw people",
        "evaluation/statistics.py",
        "statistic(draw) for draw in draws",
        "statistic(np.arange(num_people)) for draw in draws",
        "tests/unit/evaluation/test_statistics.py::test_the_readers_numbers_stay",
    ),
)

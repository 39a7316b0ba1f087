"""Measures (paper 4.1)."""

from tests.mutants.mutation import Mutation

_ALONE = "tests/unit/evaluation/test_generate.py::"
_MEANS = "tests/unit/evaluation/test_scores.py::test_similarities_are_means_of_centred_cosines"
_MOTION = "tests/unit/evaluation/test_scores.py::test_motion_is_the_mean_over_pairs_of_frames"
_KEPT = "tests/unit/evaluation/test_kept.py::test_what_is_made_of_something_else_is_measured_anew"
_METRICS = "tests/unit/evaluation/test_metrics.py::"
_NEIGHBOURS = "tests/unit/evaluation/test_scores.py::test_similarity_between_frames_is_the_mean_of_neighbours"
_PEOPLE = "tests/unit/evaluation/test_protocol.py::test_people_of_the_split_with_their_largest_face"
_PAGE = "tests/unit/evaluation/test_page.py::"
_JUDGE, _FLOW, _IN_FRAMES = (
    "evaluation/identity.py",
    "evaluation/metrics/face_motion.py",
    "evaluation/metrics/inter_frame_similarity.py",
)

EVALUATION = (
    Mutation(
        "RS is a mean",
        "evaluation/metrics/reference_similarity.py",
        "float(np.mean(cosines))",
        "float(np.max(cosines))",
        _MEANS,
    ),
    Mutation("IFS is a mean", _IN_FRAMES, "float(np.mean(cosines))", "float(np.max(cosines))", _NEIGHBOURS),
    Mutation(
        "IFS compares neighbours",
        _IN_FRAMES,
        "judge.similarity(a, b) for a, b in pairs",
        "judge.similarity(a, video.track.embeddings[0]) for a, b in pairs",
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
        "evaluation/metrics/verified.py",
        "/ len(distances)",
        "/ max(1, sum(distance is not None for distance in distances))",
        _MEANS,
    ),
    Mutation(
        "the distance is a median",
        "evaluation/metrics/median_distance.py",
        "float(np.median(known))",
        "float(np.min(known))",
        _MEANS,
    ),
    Mutation("FM is a mean over frames", _FLOW, "float(np.mean(lengths))", "float(np.max(lengths))", _MOTION),
    Mutation("FM counts in face widths", _FLOW, ".mean() / _FACE_WIDTH", ".mean()", _MOTION),
    Mutation(
        "FM is a mean over the face",
        _FLOW,
        "axis=-1).mean() / _FACE_WIDTH",
        "axis=-1).max() / _FACE_WIDTH",
        "tests/unit/evaluation/test_scores.py::test_motion_is_the_mean_over_the_face",
    ),
    Mutation(
        "what is kept names the code it was made with",
        "evaluation/kept.py",
        "(code_fingerprint(type(metric).__module__), key, ",
        "(key, ",
        _KEPT,
    ),
    Mutation("what is kept names its photo", "evaluation/kept.py", ", reference.sha256)", ")", _KEPT),
    Mutation("what is kept names its video", "evaluation/kept.py", "video.fingerprint, ", "", _KEPT),
    Mutation(
        "what is kept names the judge",
        "evaluation/seen.py",
        "judge.fingerprint + HeadModel",
        "HeadModel",
        _KEPT,
    ),
    Mutation(
        "the Frechet distance has a common part",
        "evaluation/metrics/face_frechet_distance.py",
        " - 2 * common",
        " - common",
        _METRICS + "test_frechet_distance_equals_the_one_with_a_root_of_matrices",
    ),
    Mutation(
        "copy-paste compares within prompts",
        "evaluation/metrics/copy_paste.py",
        "apart = values - means[group]",
        "apart = values - values.mean(axis=0)",
        _METRICS + "test_copy_paste_equals_a_regression",
    ),
    Mutation(
        "copy-paste counts where the prompt asks otherwise",
        "evaluation/metrics/copy_paste.py",
        "if self.aspect not in video.asks or ",
        "if ",
        _METRICS + "test_what_a_prompt_does_not_ask_for_is_no_copy",
    ),
    Mutation(
        "jitter and flicker do not reach over frames without a face",
        "evaluation/seen.py",
        "at[2:] - at[:-2] == 2",
        "at[2:] - at[:-2] >= 2",
        _METRICS + "test_jitter_equals_its_definition",
    ),
    Mutation(
        "the camera's motion is taken out",
        "evaluation/metrics/face_motion.py",
        "flow = flow - camera",
        "flow = flow + 0 * camera",
        "tests/unit/evaluation/test_motion.py::test_a_camera_that_turns_and_zooms_is_taken_out",
    ),
    Mutation(
        "structure spread is about the mean head",
        "evaluation/metrics/structure_spread.py",
        "heads - heads.mean(axis=0)",
        "heads - heads[0]",
        _METRICS + "test_structure_spread_equals_its_definition",
    ),
    Mutation(
        "the hash of code follows imports",
        "core/code_fingerprint.py",
        "                waiting.append(name)",
        "                pass",
        "tests/unit/core/test_code_fingerprint.py::test_code_counts_also_where_it_is_imported_from",
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
        "names on the page of a run are words",
        "evaluation/page/page.py",
        "autoescape=True",
        "autoescape=False",
        _PAGE + "test_names_are_words_and_not_code",
    ),
    Mutation(
        "the page shows the videos that were judged",
        "evaluation/page/shown.py",
        "file_sha256(path) != item.video_sha256",
        "False",
        _PAGE + "test_a_video_that_changed_since_is_not_shown",
    ),
    Mutation(
        "the worst videos are the worst",
        "evaluation/page/shown.py",
        "ranked[each:][::-1][:_EACH]",
        "ranked[each:][:_EACH]",
        _PAGE + "test_the_best_and_the_worst_videos_are_in_the_page",
    ),
    Mutation(
        "the plots are drawn with the page's ink",
        "evaluation/page/plots.py",
        '.replace(_INK, "currentColor")',
        "",
        _PAGE + "test_the_plots_are_drawn_with_the_pages_ink",
    ),
    Mutation(
        "earlier starts of a run stay written down",
        "evaluation/run_record.py",
        "(*before, start)",
        "(start,)",
        _PAGE + "test_every_start_is_written_down",
    ),
    Mutation(
        "intervals draw people",
        "evaluation/statistics.py",
        "statistic(draw) for draw in draws",
        "statistic(np.arange(num_people)) for draw in draws",
        "tests/unit/evaluation/test_statistics.py::test_the_readers_numbers_stay",
    ),
)

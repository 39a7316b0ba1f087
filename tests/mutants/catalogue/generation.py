"""What is asked for is what is made and what the record says, so that it can be made again."""

from tests.mutants.mutation import Mutation

_TESTS = "tests/end_to_end/test_cli_requests.py::"
_KEYS = "tests/unit/core/test_credentials.py::"
_ASKED = f"{_TESTS}test_the_pipeline_is_asked_for_what_the_request_says"
_DIFFERS = f"{_TESTS}test_what_now_differs_is_warned_of"
_FILES = f"{_TESTS}test_a_record_is_only_followed_with_the_files_it_names"
_HEADS = f"{_TESTS}test_several_photos_of_one_person_give_the_mean_head"
_NEGATIVE = f"{_TESTS}test_a_negative_prompt_changes_the_video"
_PRESET = f"{_TESTS}test_a_preset_is_what_single_options_change"
_SEEDS = f"{_TESTS}test_several_videos_have_seeds_that_count_up"
_SIZE = f"{_TESTS}test_size_length_and_rate"
_PICTURES = f"{_TESTS}test_pictures_are_written_into_a_folder"
_STUDIO, _COMMAND = "generation/studio.py", "cli/generate.py"

GENERATION = (
    Mutation(
        "the seed that was used is kept",
        _STUDIO,
        '{"seed": first.seed + number, "num_videos": 1}',
        '{"seed": first.seed, "num_videos": 1}',
        _SEEDS,
    ),
    Mutation("noise comes from the seed", _STUDIO, "manual_seed(request.seed)", "manual_seed(0)", _SEEDS),
    Mutation(
        "the negative prompt is used",
        _STUDIO,
        "negative_prompt=request.negative_prompt or None",
        "negative_prompt=None",
        _NEGATIVE,
    ),
    Mutation(
        "the identity scale is used",
        _STUDIO,
        "identity_scale=request.identity_scale",
        "identity_scale=1.0",
        _ASKED,
    ),
    Mutation(
        "the rate asked for is written",
        "generation/output.py",
        "fps, has_words = metadata.request.fps, metadata.provenance_mark",
        "fps, has_words = 8.0, metadata.provenance_mark",
        _SIZE,
    ),
    Mutation(
        "what a signed generation leaves is signed whole",
        "generation/output.py",
        "*(sorted(video.iterdir()) if video.is_dir() else (video,))",
        "*()",
        "tests/unit/generation/test_signing.py::test_video_and_sheet_are_signed_beside_the_mark",
    ),
    Mutation(
        "credentials that do not fit are not believed",
        "core/credentials.py",
        "elif failures and all(code.startswith(_ABOUT_THE_SIGNER) for code in failures)",
        "elif failures",
        f"{_KEYS}test_no_changed_byte_is_taken_for_valid",
    ),
    Mutation(
        "credentials elsewhere are not fetched",
        "core/credentials.py",
        '"remote_manifest_fetch": False',
        '"remote_manifest_fetch": True',
        f"{_KEYS}test_credentials_that_are_kept_elsewhere_are_not_fetched",
    ),
    Mutation(
        "a signing key is its user's alone",
        "core/credentials.py",
        "made.touch(0o600)",
        "made.touch()",
        f"{_KEYS}test_the_key_is_made_once_and_is_its_users_alone",
    ),
    Mutation(
        "a key is tried before time is spent",
        "core/credentials.py",
        '            _sign(picture, signed, "image/png", key, {})',
        "            pass",
        f"{_KEYS}test_a_file_that_cannot_sign_is_refused_by_name",
    ),
    Mutation("other weights are told of", _STUDIO, "record.weights_sha256 != self.weights_sha256", "False", _DIFFERS),
    Mutation(
        "a head is the mean of all photos",
        "generation/person.py",
        "for other, _ in read]).mean(0)",
        "for other, _ in read])[0]",
        _HEADS,
    ),
    Mutation(
        "a changed photo is noticed",
        "generation/record.py",
        "if file_sha256(found) != sha256",
        "if file_sha256(found) is None",
        _FILES,
    ),
    Mutation("single options go before a preset", _COMMAND, "_put(fields, place, options[option])", "pass", _PRESET),
    Mutation(
        "pictures say where they come from",
        "generation/output.py",
        'words.add_itxt("XML:com.adobe.xmp", xmp_packet())',
        "pass",
        _PICTURES,
    ),
)

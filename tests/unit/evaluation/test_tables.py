"""The tables, from measurements whose answer is known."""

from itertools import product
from typing import Any, get_args

import numpy as np
import pytest

from fantasyid.evaluation.kept import KeptMeasurement
from fantasyid.evaluation.metrics.interface import Better
from fantasyid.evaluation.metrics.registry import all_metrics
from fantasyid.evaluation.run import RunItem
from fantasyid.evaluation.run_config import RunConfig
from fantasyid.evaluation.statistics import ReportLine, swap_test
from fantasyid.evaluation.table_forms import to_latex, to_markdown
from fantasyid.evaluation.tables import MetricColumn, RunTable, best_of, build_table

PEOPLE = ("p1", "p2", "p3", "p4")
CONFIG = RunConfig.model_validate(
    {
        "people": {"photos": "photos"},
        "prompts": [{"key": "smile", "text": "Smiles."}],
        "seeds": [0],
        "systems": [
            {"name": "ours", "request": {}},
            {"name": "their_s", "videos": {"folder": "."}},
            {"name": "w-o-FA", "request": {"use_identity_tokens": False}, "ablation": True},
        ],
        "compared_with": "ours",
    }
)
RS = {"ours": (0.5, 0.6, 0.7, 0.8), "their_s": (0.4, 0.5, 0.5, 0.6), "w-o-FA": (0.5, 0.6, 0.7, 0.8)}


def item(system: str, person: str, failure: str | None = None, prompt_key: str = "smile", **values: Any) -> RunItem:
    empty: dict[str, Any] = {metric.definition.key: None for metric in all_metrics()}
    empty |= {"face_frechet_distance": "1 AAAAAA==", "median_distance": (), "detection_rate": (2, 2)}
    measured = {key: KeptMeasurement(made_of="0" * 64, value=value) for key, value in (empty | values).items()}
    return RunItem(
        system=system,
        person=person,
        prompt_key=prompt_key,
        seed=0,
        recognizer="dlib-resnet",
        made_of=None,
        video_sha256=None,
        failure=failure,
        measured={} if failure else measured,
    )


def items() -> list[RunItem]:
    return [
        item(system, person, reference_similarity=RS[system][index], face_motion_per_second=0.1 * (index + 1))
        for system in RS
        for index, person in enumerate(PEOPLE)
    ]


@pytest.fixture(scope="module")
def table() -> RunTable:
    return build_table(CONFIG, items())


def column(table: RunTable, key: str) -> Any:
    return next(column for column in table.columns if column.key == key)


def test_numbers_differences_and_tests(table: RunTable) -> None:
    rs = column(table, "reference_similarity")
    assert [line.value for line in rs.lines] == pytest.approx([0.65, 0.5, 0.65])
    base, theirs, same = rs.comparisons
    assert base is None
    assert theirs.difference == pytest.approx(-0.15)
    assert theirs.low == pytest.approx(-0.2)
    assert theirs.high == pytest.approx(-0.1)
    assert theirs.p == pytest.approx(2 / 16, abs=0.03), "of 16 exchanges two are as far apart"
    assert (same.difference, same.p) == (0, 1)
    assert column(table, "jitter").lines[0].value is None
    assert column(table, "jitter").comparisons[1].p is None
    assert table.num_videos == dict.fromkeys(RS, 4)


def test_a_failed_video_is_in_no_number_and_is_named() -> None:
    some = [
        item("ours", "p4", "OutOfMemoryError: no memory.") if (one.system, one.person) == ("ours", "p4") else one
        for one in items()
    ]
    table = build_table(CONFIG, some)
    assert column(table, "reference_similarity").lines[0].value == pytest.approx(0.6)
    assert table.num_videos["ours"] == 3
    assert table.failures == {"ours, p4_smile_0": "OutOfMemoryError: no memory."}
    assert "1 videos failed and are in no number:\n\n- ours, p4_smile_0: OutOfMemoryError: no memory." in to_markdown(
        table
    )


def test_a_number_that_cannot_be_had_of_a_video_is_not_in_it_and_is_named() -> None:
    config = RunConfig.model_validate(CONFIG.model_dump() | OPPOSITES | {"clip_folder": "clip"})
    config = config.model_copy(
        update={"opposites": (config.opposites[0].model_copy(update={"measure": "clip_score"}),)}
    )
    scores = {"smile": 30.0, "serious": 20.0}
    videos = [
        item(system, person, prompt_key=key, clip_score=score, reference_similarity=0.5)
        for system in RS
        for person in PEOPLE
        for key, score in scores.items()
    ]
    refused = KeptMeasurement(made_of="0" * 64, value=None, failure="InvalidRequestError: It is too long.")
    videos[0] = videos[0].model_copy(update={"measured": videos[0].measured | {"clip_score": refused}})
    videos[1] = videos[1].model_copy(update={"measured": videos[1].measured | {"detection_rate": refused}})
    table = build_table(config, videos)
    assert table.unmeasured == {
        "ours, p1_smile_0, CLIP score": "InvalidRequestError: It is too long.",
        "ours, p1_serious_0, face found": "InvalidRequestError: It is too long.",
    }
    assert column(table, "detection_rate").lines[0].value == 1
    assert column(table, "clip_score").lines[0].value == pytest.approx((3 * 30 + 4 * 20) / 7)
    assert column(table, "reference_similarity").lines[0].value == 0.5
    assert column(table, "prompt_obedience").lines[0].value == 1, "and it did not disobey"
    assert to_markdown(table).endswith(
        "2 numbers of single videos could not be measured:\n\n- ours, p1_smile_0, CLIP score: InvalidRequestError: It "
        "is too long.\n- ours, p1_serious_0, face found: InvalidRequestError: It is too long.\n"
    )


def test_markdown(table: RunTable) -> None:
    text = to_markdown(table)
    second, third = text.split("**Table 2**")[1].split("**Table 3**")
    assert "RS (dlib-resnet) ↑ | IFS (dlib-resnet) ↑ | FM, face widths per second ↑ |" in second
    assert "| ours | none | **0.650** [0.550, 0.750] | none |" in second
    assert "| their_s | none | 0.500 [" in second
    assert "w-o-FA" not in second
    assert "| w-o-FA | none | **0.650** [" in third.split("**All")[0]
    assert "their_s" not in third.split("**All")[0]
    assert "-0.150 [-0.200 to -0.100], p 0.1" in third


def test_the_best_is_the_highest_or_the_lowest() -> None:
    values = (("a", 0.3), ("b", 0.1), ("c", 0.2), ("d", None))
    lines = tuple(ReportLine(name=name, value=value, low=None, high=None) for name, value in values)
    found = {
        better: best_of(MetricColumn(key="", title="", better=better, lines=lines, comparisons=()), "acd")
        for better in get_args(Better)
    }
    assert found == {"higher": 0.3, "lower": 0.2, "neither": None}
    alone = MetricColumn(key="", title="", better="higher", lines=lines, comparisons=())
    assert best_of(alone, "ad") is None


def test_latex(table: RunTable) -> None:
    text = to_latex(table)
    assert r" & Frechet distance of faces, own features $\downarrow$ & RS (dlib-resnet) $\uparrow$ & " in text
    assert r"ours & none & \textbf{0.650} [0.550, 0.750] & none & " in text
    assert r"their\_s & none & 0.500" in text
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2


def test_json(table: RunTable) -> None:
    assert RunTable.model_validate_json(table.model_dump_json()) == table


def test_without_ablations_there_is_no_third_table() -> None:
    config = CONFIG.model_copy(update={"systems": CONFIG.systems[:2]})
    text = to_markdown(build_table(config, [one for one in items() if one.system != "w-o-FA"]))
    assert "Table 3" not in text


OPPOSITES = {
    "prompts": [{"key": "smile", "text": "Smiles."}, {"key": "serious", "text": "Is serious."}],
    "opposites": [{"measure": "smile", "higher": "smile", "lower": "serious"}],
}


def test_prompts_are_obeyed_where_the_first_shows_more() -> None:
    config = RunConfig.model_validate(CONFIG.model_dump() | OPPOSITES)
    shown = {"ours": (0.9, 0.9, 0.9, None), "their_s": (0.7, 0.7, 0.9, 0.7), "w-o-FA": (0.7, 0.7, 0.7, 0.7)}
    videos = [
        item(system, person, prompt_key=key, smile=smile if key == "smile" else 0.8)
        for system, smiles in shown.items()
        for person, smile in zip(PEOPLE, smiles, strict=True)
        for key in ("serious", "smile")
    ]
    table = build_table(config, videos)
    obeyed = column(table, "prompt_obedience")
    # Without a face nothing was done.
    assert [line.value for line in obeyed.lines] == [0.75, 0.25, 0]
    assert [line.value for line in column(table, "obeyed_smile_smile_serious").lines] == [0.75, 0.25, 0]
    assert obeyed.comparisons[1].difference == -0.5
    assert "| prompts obeyed: smile over serious (smile) ↑ | 0.750 [" in to_markdown(table)
    # A video whose opposite failed says nothing.
    failed = item("ours", "p4", "OutOfMemoryError: no memory.", prompt_key="serious")
    rest = [one for one in videos if (one.system, one.person, one.prompt_key) != ("ours", "p4", "serious")]
    assert column(build_table(config, [*rest, failed]), "prompt_obedience").lines[0].value == 1


def test_a_pair_counts_within_one_seed() -> None:
    config = RunConfig.model_validate(
        CONFIG.model_dump() | OPPOSITES | {"seeds": [0, 1], "systems": CONFIG.systems[:1]}
    )
    smiles = {("smile", 0): 0.5, ("serious", 0): 0.6, ("smile", 1): 0.9, ("serious", 1): 0.8}
    videos = [
        item("ours", "p1", prompt_key=key, smile=smile).model_copy(update={"seed": seed})
        for (key, seed), smile in smiles.items()
    ]
    assert column(build_table(config, videos), "prompt_obedience").lines[0].value == 0.5


def test_the_swap_test_is_that_of_all_exchanges() -> None:
    differences = np.random.default_rng(4).normal(0.4, 1, 8)

    def difference(swapped: np.ndarray) -> float:
        return float(np.where(swapped, -differences, differences).mean())

    everything = [abs(difference(np.array(swapped))) for swapped in product([False, True], repeat=8)]
    exact = np.mean([other >= abs(differences.mean()) - 1e-12 for other in everything])
    assert swap_test(difference, 8) == pytest.approx(exact, abs=0.04)
    assert swap_test(lambda swapped: 0.0, 8) == 1
    assert swap_test(lambda swapped: None, 8) is None
    assert swap_test(lambda swapped: float(np.where(swapped, -1, 1).sum()), 30) == pytest.approx(1 / 1001)

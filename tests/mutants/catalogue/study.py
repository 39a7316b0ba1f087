"""The user study (paper 4.2, Table 1)."""

from tests.mutants.mutation import Mutation

_TABLE, _PAGES = "tests/unit/study/test_table.py::", "tests/unit/study/test_pages.py::"

STUDY = (
    Mutation(
        "every rating counts alike",
        "study/table.py",
        "float(np.nanmean(scores[draw]))",
        "float(np.nanmean(np.nanmean(scores[draw], axis=1)))",
        f"{_TABLE}test_every_rating_counts_alike",
    ),
    Mutation(
        "agreement leaves out what nobody else rated",
        "study/table.py",
        "if len(values) > 1]",
        "if len(values) > 0]",
        f"{_TABLE}test_krippendorffs_own_example",
    ),
    Mutation(
        "videos are in random order",
        "study/plan.py",
        "tuple(chance.sample(self.systems, len(self.systems)))",
        "self.systems",
        f"{_PAGES}test_orders_differ_from_rater_to_rater",
    ),
    Mutation(
        "the first answer counts",
        "study/store.py",
        "            if not added.rowcount:\n                return False\n",
        "            if not added.rowcount:\n                "
        'database.execute("DELETE FROM scores WHERE rater = ? AND item = ?", (rater, item))\n',
        f"{_PAGES}test_the_first_answer_counts",
    ),
    Mutation(
        "addresses do not say the system",
        "study/pages.py",
        'src="/raters/{rater}/{number}/{place}"',
        'src="/raters/{rater}/{number}/{place}" title="/ours"',
        f"{_PAGES}test_a_rater_sees_everything_once_and_nothing_says_what_made_it",
    ),
)

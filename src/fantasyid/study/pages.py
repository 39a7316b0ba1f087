"""The pages of a study as HTML: no script, so they work everywhere, by keyboard and on a phone."""

from collections.abc import Mapping
from html import escape
from string import Template, ascii_uppercase

from fantasyid.study.plan import HIGHEST, QUESTIONS, Item, StudyPlan

_FRAME = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>$title</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/style.css">
</head>
<body>
$banner<main>
$content
</main>
</body>
</html>
""")
_BANNER = '<p class="simulated" role="note">Simulated raters: this study tries the software and rates nothing.</p>\n'


def start_page(plan: StudyPlan, rater: str) -> str:
    """The first page: what raters do, and the button that begins.

    Args:
        plan: What is rated.
        rater: A new id, which the button sends; sent twice, one rater begins.
    """
    number, count = plan.pages_per_rater, len(plan.systems)
    questions = "".join(f"<li><strong>{name}.</strong> {asked}</li>" for name, asked in QUESTIONS.values())
    return _page(
        "Rate videos of people",
        f"""<h1>Rate videos of people</h1>
<p>You will see {number} {"page" if number == 1 else "pages"}. Each shows the photo of a person, a sentence, and
{count} videos that computers made of them. Please give every video four scores from 0, the worst, to {HIGHEST}, the
best:</p>
<ul>{questions}</ul>
<p>The order of pages and videos is random, and nothing tells which computer made what. Your scores are kept with the
time, and nothing else about you. You may stop at any time: the address of your pages is yours, and takes you back to
where you were.</p>
<form method="post" action="/raters">
<input type="hidden" name="rater" value="{escape(rater)}">
<button>Begin</button>
</form>""",
        plan,
    )


def rating_page(plan: StudyPlan, rater: str, number: int, item: Item, given: Mapping[str, str] | None = None) -> str:
    """A page with the photo, the sentence, and each system's video with its scores.

    Args:
        plan: What is rated.
        rater: Whose page.
        number: Which of their pages, from 0.
        item: What it shows.
        given: Fields that were sent and lack something, to be completed; None at first.
    """
    columns = "\n".join(_column(rater, number, place, given or {}) for place in range(len(plan.systems)))
    missing = '<p class="missing" role="alert">Some scores are missing; please give all of them.</p>'
    return _page(
        f"Page {number + 1} of {plan.pages_per_rater}",
        f"""<h1>Page {number + 1} of {plan.pages_per_rater}</h1>
<progress max="{plan.pages_per_rater}" value="{number}" aria-label="Pages done"></progress>
{"" if given is None else missing}<section class="asked">
<img src="/raters/{rater}/{number}/photo" alt="Photo of the person">
<p>The videos should show this person:<br><q>{escape(item.prompt)}</q></p>
</section>
<form method="post" action="/raters/{rater}/{number}">
<div class="videos">
{columns}
</div>
<button>Send and go on</button>
</form>""",
        plan,
    )


def _column(rater: str, number: int, place: int, given: Mapping[str, str]) -> str:
    name = f"Video {ascii_uppercase[place]}"
    scales = "\n".join(_scale(name, place, question, given) for question in QUESTIONS)
    return f"""<section class="video" aria-label="{name}">
<h2>{name}</h2>
<video src="/raters/{rater}/{number}/{place}" controls autoplay loop muted playsinline></video>
{scales}
</section>"""


def _scale(name: str, place: int, question: str, given: Mapping[str, str]) -> str:
    field = field_name(place, question)
    title, asked = QUESTIONS[question]
    buttons = "".join(
        f'<label><input type="radio" name="{field}" value="{score}" required'
        f"{' checked' if given.get(field) == str(score) else ''}><span>{score}</span></label>"
        for score in range(HIGHEST + 1)
    )
    return f"""<fieldset>
<legend>{title} <small class="of">of {name}</small></legend>
<p>{asked}</p>
<div class="scale">{buttons}</div>
</fieldset>"""


def field_name(place: int, question: str) -> str:
    """Name of the field with the score of the video at a place."""
    return f"{place}-{question}"


def end_page(plan: StudyPlan) -> str:
    """The last page."""
    return _page("Thank you", "<h1>Thank you</h1>\n<p>You have rated everything. You may close this page.</p>", plan)


def fault_page(plan: StudyPlan, sentence: str) -> str:
    """A page that says what is wrong.

    Args:
        plan: What is rated.
        sentence: What is wrong.
    """
    return _page(
        "Not found",
        f'<h1>This page is not here</h1>\n<p>{escape(sentence)}</p>\n<p><a href="/">To the start</a></p>',
        plan,
    )


def _page(title: str, content: str, plan: StudyPlan) -> str:
    return _FRAME.substitute(title=escape(title), content=content, banner=_BANNER if plan.simulated else "")

"""Text that is safe by construction."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tersor.report.html import LONGEST, Html, code, join, tag, text


def test_what_is_no_markup_is_escaped() -> None:
    assert text("<b>&\"'") == "&lt;b&gt;&amp;&quot;&#x27;"
    assert tag("p", "<i>", Html("<i>"), title='"><script>') == '<p title="&quot;&gt;&lt;script&gt;">&lt;i&gt;<i></p>'
    assert join(["a<", tag("b", ">")], "&") == "a&lt;&<b>&gt;</b>", "between is markup"
    assert code("a<.b_c") == "<code>a&lt;.<wbr>b_<wbr>c</code>"


def test_attributes() -> None:
    assert (
        tag("a", "x", class_="k", aria_label="y", hidden=True, id=None, open=False)
        == '<a class="k" aria-label="y" hidden>x</a>'
    )
    assert tag("meta", name_="n") == '<meta name="n">' and tag("rect", x=1) == '<rect x="1"/>' and tag("p") == "<p></p>"
    assert tag("svg", viewBox="0 0 1 1") == '<svg viewBox="0 0 1 1"></svg>'


def test_characters_that_nobody_sees_are_shown() -> None:
    assert text("a\x00b\u202ec\u200b\x1b") == "a\\u0000b\\u202ec\\u200b\\u001b"
    assert text("1\u00a0%\nx") == "1\u00a0%\nx" and text("größe 重み") == "größe 重み"
    assert len(text("x" * 10**6)) == LONGEST and text("x" * 10**6).endswith("…")


@given(st.text())
def test_no_text_leaves_its_place(given_: str) -> None:
    made = tag("p", given_, title=given_)
    assert made.count("<") == 2 and made.count(">") == 2 and made.count('"') == 2

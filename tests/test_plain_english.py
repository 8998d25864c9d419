"""The texts of the project avoid patterns that are not plain English.

`python tests/test_plain_english.py` prints every finding, with a count per pattern.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[1]
SOURCES = sorted(
    file
    for pattern in ("mtl_nlp/**/*.py", "scripts/*", "recipes/*.yaml", "recipes/README.md", "docs/**/*.md", "*.md")
    for file in REPOSITORY.glob(pattern)
    if file.is_file()
)


class Text(NamedTuple):
    """A docstring, comment, message or paragraph.

    Attributes:
        file: The file that contains the text.
        line: The number of its first line.
        kind: `function` (the docstring of a function or method), `docstring` (of a module, class or property),
            `message`, `comment` or `prose`.
        content: The text with every run of white space as one space. Code between backquotes is `…`, and so is every
            placeholder of a message.
    """

    file: Path
    line: int
    kind: str
    content: str


class Pattern(NamedTuple):
    """A regular expression for English to avoid.

    Attributes:
        advice: The plain form.
        expression: The regular expression. `START` stands for the start of a sentence.
        caught: Texts that the expression finds.
        allowed: Similar texts that it does not find.
        kinds: The kinds of texts to search, or none for all.
    """

    advice: str
    expression: str
    caught: tuple[str, ...]
    allowed: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset()

    def search(self, text: Text) -> Iterator[str]:
        """Yield what surrounds each match in a text."""
        if self.kinds and text.kind not in self.kinds:
            return
        for match in re.finditer(self.expression.replace("START", _START), text.content):
            yield text.content[max(0, match.start() - 20) : match.end() + 30].strip()


_START = r"(?:^|(?<=[.!?:;] )|(?<=[.!?]\) ))"
_UNIT = (
    r"(?:word|sub-word|token|tag|task|class|row|step|epoch|dataset|line|text|sentence|batch|micro-batch|process|rank|"
    r"device|GPU|second|seed|head|layer|label|window|pass|file|split|run)\b"
    r"(?!'|-| (?:has|have|had|is|was|can|may|makes|needs))"
)
_PLURAL = r"(?:rows|steps|passes|texts|batches|words|sub-words|tokens|heads|labels|parameters|windows|seconds|lines)"
_NO_NOUN = r"(?:of|where|in|if|for|from|to|as|when|by|with|is|was|that|on|than|gives|has|into)"

PATTERNS: dict[str, Pattern] = {
    "so many": Pattern(
        "the given number of",
        r"\b(?:[Ii]n|[Aa]fter|[Ff]or|[Aa]t|of|with|or|only|[Ee]very) so (?:many|much)\b",
        ("In so many processes.",),
        ("There are so many that they differ.",),
    ),
    "come of": Pattern("result", r"\b(?:comes?|came|coming) of\b", ("What came of it.",), ("What came out of it.",)),
    "to be had": Pattern("available", r"\bto be had\b", ("It is not to be had.",), ("It had to be.",)),
    "clause as a subject": Pattern(
        "Start with the noun: `The rows that …` instead of `What …`.",
        r"START(?:What|Which|Who|Whoever|Whose|Whatever) (?![^.?!]*\?)",
        ("What comes out is a row.", "Nothing. Whoever has it loads it.", "`x`: what is read. What is left: rows."),
        ("What is a task?", "The rows, which are read."),
    ),
    "sentence that starts with `Of`": Pattern(
        "Start with the subject.", r"STARTOf (?!course)", ("Of two, the last is used.",), ("The last of two.",)
    ),
    "sentence that starts with `Whether`": Pattern(
        "`Return whether …`, `Check whether …`. Attributes, arguments and properties may start with `Whether`.",
        r"^Whether ",
        ("Whether a task has spans.",),
        ("Return whether a task has spans.",),
        frozenset({"function", "comment"}),
    ),
    "docstring of a function without a verb": Pattern(
        "Start with a verb in the imperative: `Return the …`.",
        r"^(?:The|A|An|All|Each|Every|What|Which|How|These|This|Its|Their|One|Two|Where|When|Who|Inside|Same) ",
        ("The rows of a split.", "How long a text is."),
        ("Return the rows.",),
        frozenset({"function"}),
    ),
    "see that": Pattern(
        "check that", r"\b[Ss]ee(?:s|ing|n)? (?:to it )?that\b", ("See that it fits.",), ("See the rule.",)
    ),
    "go on": Pattern(
        "continue, resume", r"\b(?:[Gg]o|goes|gone|going|went) on\b", ("It goes on.",), ("It goes to a task.",)
    ),
    "in place of": Pattern("instead of", r"\bin (?:the )?place of\b", ("B in place of A.",), ("B instead of A.",)),
    "that is there": Pattern(
        "existing, missing",
        r"\b(?:that|which|[Ww]hat|who|file|column|folder|it|they) (?:is|are|was|were) (?:not |already |still )?there\b"
        r"(?! (?:is|are|a)\b)",
        ("A file that is there.", "What was not there."),
        ("If there is a file.", "The list that is there is short."),
    ),
    "is no": Pattern(
        "is not a, has no",
        r"(?<![Tt]here )\b(?:is|are|was|were|be) (?:none|no (?!longer|more|fewer|less|larger|smaller|later)\w+)\b",
        ("This is no head.", "It was none."),
        ("There is no head.", "It is no longer used.", "It has no head."),
    ),
    "a line a word": Pattern(
        "a line per word",
        rf"\b(?:(?:an?|[Oo]ne|two|three|\d[\d,]*) (?!{_NO_NOUN} )[\w-]+|[Oo]ne|{_PLURAL}) an? {_UNIT}",
        ("It prints a line a word.", "one head a task", "rows an epoch", "two rows a step", "a list, one a row"),
        (
            "A line per word.",
            "a batch of a task",
            "1 where a task is absent",
            "how many rows a step has",
            "a row a row's",
        ),
    ),
    "tell": Pattern(
        "report, state, name",
        r"\b(?:[Tt]ells?|told|telling)\b(?!(?: \w+){0,6} apart)",
        ("It is told.",),
        ("To tell two apart.",),
    ),
    "whole": Pattern(
        "complete",
        r"\bwhole (?:checkpoint|run|one|file)s?\b|\b(?:is|are|was|were|not|pushed|left) whole\b",
        ("The last whole checkpoint.", "It is not whole."),
        ("The whole encoder.",),
    ),
    "but for": Pattern("except", r"\b[Bb]ut for\b", ("All but for one.",), ("All except one.",)),
    "is to": Pattern(
        "must, should",
        r"\b(?:is|are|was|were) (?:not )?to (?!be had|\d)(?:be|have|go|stay|read|make|take|do|come|run|train)\b",
        ("What is to be read.",),
        ("The aim is to compare.",),
    ),
    "anew": Pattern("again", r"\b(?:anew|afresh)\b", ("It is made anew.",), ("It is made again.",)),
    "say of": Pattern(
        "say about", r"\b[Ss]a(?:ys?|id) of\b", ("It says of a row that …",), ("It says how to use it.",)
    ),
}
"""Patterns that no text contains."""


def python_texts(file: Path) -> Iterator[Text]:
    """Yield the docstrings, messages and comments of a Python file."""
    source = file.read_text(encoding="utf-8")
    tree = ast.parse(source)
    docstrings: dict[int, str] = {}
    parts = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if node.body and isinstance(node.body[0], ast.Expr):
                docstrings[id(node.body[0].value)] = kind_of(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings.setdefault(id(node.value), "docstring")  # below a constant
        elif isinstance(node, ast.JoinedStr):
            parts |= {id(part) for part in ast.walk(node) if part is not node}
    for node in ast.walk(tree):
        if id(node) in parts:
            continue
        if isinstance(node, ast.JoinedStr):
            content = "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
            yield Text(file, node.lineno, "message", plain(content))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            kind = docstrings.get(id(node), "message")
            for line, paragraph in paragraphs(node.value, node.lineno):
                yield Text(file, line, kind, plain(paragraph))
                kind = "docstring" if kind == "function" else kind
    yield from comments(file, source)


def kind_of(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return the kind of a node's docstring."""
    if isinstance(node, ast.Module | ast.ClassDef):
        return "docstring"
    decorators = {ast.unparse(decorator).split(".")[-1] for decorator in node.decorator_list}
    return "docstring" if decorators & {"property", "cached_property", "setter"} else "function"


def comments(file: Path, source: str) -> Iterator[Text]:
    """Yield the comments of a Python file; comments on consecutive lines are one text."""
    block: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if block and (token.start[0] != block[-1].start[0] + 1 or token.start[1] != block[-1].start[1]):
            yield joined(file, block)
            block = []
        block.append(token)
    if block:
        yield joined(file, block)


def joined(file: Path, block: list[tokenize.TokenInfo]) -> Text:
    """Return a block of comments as one text."""
    content = " ".join(token.string.lstrip("#! ") for token in block)
    return Text(file, block[0].start[0], "comment", plain(content))


def paragraphs(text: str, line: int) -> Iterator[tuple[int, str]]:
    """Yield the first line's number and the text of each paragraph, list item and description of an argument."""
    block: list[str] = []
    first = line
    for number, row in enumerate(text.splitlines(), start=line):
        item = re.match(r"\s*(?:[-*|>]|\d+\.|#+|\*{0,2}\w+(?: \([^)]*\))?:)\s", row)
        if block and (item or not row.strip()):
            yield first, "\n".join(block)
            block = []
        if row.strip():
            first = first if block else number
            block.append(re.sub(r"^\s*(?:[-*|>]|\d+\.|#+|\w+:)\s+", "", row))
    if block:
        yield first, "\n".join(block)


def plain(text: str) -> str:
    """Return a text with code as `…` and runs of white space as one space."""
    return re.sub(r"\s+", " ", re.sub(r"``?[^`]+``?", "…", text)).strip()


def prose_texts(file: Path) -> Iterator[Text]:
    """Yield the paragraphs of a Markdown file, and the comments inside its code blocks."""
    inside = False
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("```"):
            inside = not inside
            kept.append("")
        elif inside:
            kept.append("\n" if " # " not in line and not line.startswith("#") else line.split("#", 1)[1])
        else:
            kept.append(line)
    for line, paragraph in paragraphs("\n".join(part.strip("\n") for part in kept), 1):
        for cell in paragraph.split(" | "):
            yield Text(file, line, "prose", plain(cell))


def commented_texts(file: Path) -> Iterator[Text]:
    """Yield the comments and quoted messages of a YAML file or shell script."""
    block: list[str] = []
    lines = file.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate([*lines, ""], start=1):
        if own := re.match(r"\s*#!? ?(.*)", line):
            block.append(own[1])
            continue
        for first, paragraph in paragraphs("\n".join(block), number - len(block)):
            yield Text(file, first, "comment", plain(paragraph))
        block = []
        for comment in re.findall(r"(?:\s|^)#+ (.*)", line):
            yield Text(file, number, "comment", plain(comment))
        for message in re.findall(r'"([^"]* [^"]* [^"]*)"', line):
            yield Text(file, number, "message", plain(message))


def texts_of(file: Path) -> Iterator[Text]:
    """Yield the texts of a file."""
    if file.suffix == ".py":
        yield from python_texts(file)
    elif file.suffix == ".md":
        yield from prose_texts(file)
    else:
        yield from commented_texts(file)


def findings(pattern: Pattern) -> Iterator[str]:
    """Yield `file:line: text` of every match."""
    for text in TEXTS:
        for found in pattern.search(text):
            yield f"{text.file.relative_to(REPOSITORY)}:{text.line}: {found}"


TEXTS = [text for file in SOURCES for text in texts_of(file) if re.search(r"\w \w", text.content)]


@pytest.mark.parametrize("name", PATTERNS)
def test_no_text_contains_the_pattern(name):
    found = [*findings(PATTERNS[name])]
    assert not found, "\n".join([f"Instead: {PATTERNS[name].advice}", *found])


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_finds_its_examples_and_no_similar_text(name):
    pattern = PATTERNS[name]
    kind = next(iter(pattern.kinds), "prose")
    for caught, texts in ((True, pattern.caught), (False, pattern.allowed)):
        for text in texts:
            assert bool([*pattern.search(Text(REPOSITORY, 1, kind, plain(text)))]) is caught, text


def test_docstrings_messages_comments_and_paragraphs_are_read(tmp_path):
    module = tmp_path / "module.py"
    module.write_text(
        '"""Of a module."""\nX = 1  # Of X\n"""Of a constant."""\n\n# Of two\n# lines\n'
        'def f(y):\n    """Of `f`.\n\n    Args:\n        y: of y\n          as well\n    """\n'
        '    raise ValueError(f"Of {y!r} and "\n        "more")\n'
        'class C:\n    @property\n    def p(self):\n        """Of p."""\n'
    )
    found = {(text.line, text.kind, text.content) for text in texts_of(module) if text.content.lower().startswith("of")}
    assert found == {
        (1, "docstring", "Of a module."),
        (2, "comment", "Of X"),
        (3, "docstring", "Of a constant."),
        (5, "comment", "Of two lines"),
        (8, "function", "Of …."),
        (11, "docstring", "of y as well"),
        (14, "message", "Of … and more"),
        (19, "docstring", "Of p."),
    }
    page = tmp_path / "page.md"
    page.write_text("# Of a page\n\nOf two\nlines.\n\n```bash\ncommand  # of a command\n```\n- of an item\n")
    assert [(text.line, text.content) for text in texts_of(page)] == [
        (1, "Of a page"),
        (3, "Of two lines."),
        (7, "of a command"),
        (9, "of an item"),
    ]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("# Of a\n# recipe\nkey: 1  # of a key\n")
    assert [(text.line, text.content) for text in texts_of(recipe)] == [(1, "Of a recipe"), (3, "of a key")]


if __name__ == "__main__":
    for title, each in PATTERNS.items():
        lines = [*findings(each)]
        print(f"== {title}: {len(lines)} (instead: {each.advice})", *lines, sep="\n")

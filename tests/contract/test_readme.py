"""What the README shows is what happens."""

import re
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_first_example_prints_what_is_printed_below_it(capsys):
    example = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)
    exec(compile(example[1], "README.md", "exec"), {})
    assert capsys.readouterr().out == example[2]


def test_the_other_examples_run(capsys):
    loop, sandboxes, versions = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[1:]
    namespace = {}
    exec(compile(loop, "README.md", "exec"), namespace)
    scores = [line for line in capsys.readouterr().out.splitlines() if line.startswith("score:")]
    assert scores == ["score: 1 (valid)", "score: 0 (invalid: syntax)"]
    exec(compile(sandboxes, "README.md", "exec"), namespace)
    assert capsys.readouterr().out == "2\n5\n6\n"
    exec(compile(versions, "README.md", "exec"), namespace)
    assert capsys.readouterr().out == "('program:solve',)\nsecond\n"

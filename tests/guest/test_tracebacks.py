from evocell_guest.tracebacks import clip


def test_only_the_variants_frames_are_shown_with_its_own_lines(guest):
    answer = guest.run(
        "import json\n\ndef g(text):\n    return json.loads(text)\n\ndef f():\n    return g('{')  # here\n"
    )

    assert answer["traceback"] == (
        "Traceback (most recent call last):\n"
        f'  File "{guest.root}/program.py", line 7, in f\n'
        "    return g('{')  # here\n"
        f'  File "{guest.root}/program.py", line 4, in g\n'
        "    return json.loads(text)\n"
        "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
    )


def test_a_cause_and_a_context_are_told(guest):
    answer = guest.run(
        "def f():\n  try:\n    try: 1 / 0\n    except ZeroDivisionError as e: raise KeyError('k') from e\n"
        "  except KeyError: raise TypeError('t')"
    )

    parts = answer["traceback"].split("\n\n")
    assert [part.splitlines()[-1] for part in parts] == [
        "ZeroDivisionError: division by zero",
        "The above exception was the direct cause of the following exception:",
        "KeyError: 'k'",
        "During handling of the above exception, another exception occurred:",
        "TypeError: t",
    ]


def test_a_hidden_context_stays_hidden(guest):
    answer = guest.run("def f():\n  try: 1 / 0\n  except ZeroDivisionError: raise TypeError('t') from None")

    assert "division by zero" not in answer["traceback"]


def test_notes_and_members_of_a_group_are_told(guest):
    answer = guest.run(
        "def f():\n  e = ValueError('v')\n  e.add_note('a note')\n  raise ExceptionGroup('g', [e, KeyError('k')])"
    )

    assert "  | ValueError: v\n  | a note\n" in answer["traceback"]
    assert "  | KeyError: 'k'" in answer["traceback"]


def test_a_deep_stack_is_folded_and_its_middle_left_out(guest):
    source = "def a(n): return b(n)\ndef b(n):\n  if n: return a(n - 1)\n  1 / 0\ndef f(): return a(400)"
    lines = guest.run(source)["traceback"].splitlines()

    assert lines[1].endswith("in f")
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert any("frames left out" in line for line in lines)
    assert len(lines) < 100


def test_a_frame_without_its_file_is_shown_without_its_line(guest):
    answer = guest.run("import os\ndef f():\n  os.remove(__file__)\n  raise ValueError('gone')")

    assert answer["traceback"].splitlines()[1:] == [
        f'  File "{guest.root}/program.py", line 4, in f',
        "ValueError: gone",
    ]


def test_long_text_keeps_its_head_and_its_tail():
    text = clip("start" + "é" * 100_000 + "end", 4096)

    assert text.startswith("starté")
    assert text.endswith("éend")
    assert "[…]" in text
    assert len(text.encode()) <= 4096

"""What docs/erlang.md and its example say, with the real Erlang and Elixir where they are installed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ESCRIPT, ELIXIR = shutil.which("escript"), shutil.which("elixir")

# As much of Msgpax as the page uses; the library itself is not needed to see whether the page is right.
MSGPAX = r"""
defmodule Msgpax do
  def pack!(v), do: IO.iodata_to_binary(pack(v))
  def unpack!(data), do: (fn {v, ""} -> v end).(value(data))

  defp pack(nil), do: <<0xC0>>
  defp pack(b) when is_boolean(b), do: if(b, do: <<0xC3>>, else: <<0xC2>>)
  defp pack(a) when is_atom(a), do: pack(Atom.to_string(a))
  defp pack(n) when is_integer(n) and n >= 0, do: <<0xCF, n::64>>
  defp pack(s) when is_binary(s), do: [<<0xDB, byte_size(s)::32>>, s]
  defp pack(l) when is_list(l), do: [<<0xDD, length(l)::32>> | Enum.map(l, &pack/1)]
  defp pack(m) when is_map(m), do: [<<0xDF, map_size(m)::32>> | Enum.map(m, fn {k, v} -> [pack(k), pack(v)] end)]

  defp value(<<n, r::binary>>) when n < 0x80, do: {n, r}
  defp value(<<0b1000::4, n::4, r::binary>>), do: pairs(n, r, %{})
  defp value(<<0b1001::4, n::4, r::binary>>), do: items(n, r, [])
  defp value(<<0b101::3, n::5, s::binary-size(n), r::binary>>), do: {s, r}
  defp value(<<0xC0, r::binary>>), do: {nil, r}
  defp value(<<0xC2, r::binary>>), do: {false, r}
  defp value(<<0xC3, r::binary>>), do: {true, r}
  defp value(<<0xCB, f::float, r::binary>>), do: {f, r}
  defp value(<<0xCC, n::8, r::binary>>), do: {n, r}
  defp value(<<0xCD, n::16, r::binary>>), do: {n, r}
  defp value(<<0xCE, n::32, r::binary>>), do: {n, r}
  defp value(<<0xCF, n::64, r::binary>>), do: {n, r}
  defp value(<<0xD9, n::8, s::binary-size(n), r::binary>>), do: {s, r}
  defp value(<<0xDA, n::16, s::binary-size(n), r::binary>>), do: {s, r}
  defp value(<<0xDC, n::16, r::binary>>), do: items(n, r, [])
  defp value(<<0xDE, n::16, r::binary>>), do: pairs(n, r, %{})

  defp items(0, r, l), do: {Enum.reverse(l), r}
  defp items(n, r, l), do: (fn {v, r} -> items(n - 1, r, [v | l]) end).(value(r))

  defp pairs(0, r, m), do: {m, r}

  defp pairs(n, r, m) do
    {k, r} = value(r)
    {v, r} = value(r)
    pairs(n - 1, r, Map.put(m, k, v))
  end
end
"""


@pytest.fixture
def env(tmp_path):
    """A path on which `evocell` is this checkout's."""
    command = tmp_path / "evocell"
    path = os.pathsep.join(filter(None, sys.path))
    command.write_text(f'#!/bin/sh\nPYTHONPATH="{path}" exec "{sys.executable}" -m evocell "$@"\n')
    command.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "ELIXIR_ERL_OPTIONS": "+fnu"}


@pytest.mark.skipif(ESCRIPT is None, reason="escript is not installed")
def test_the_example_for_erlang(env):
    example = ROOT / "examples" / "erlang" / "evocell.escript"
    ended = subprocess.run(
        [ESCRIPT, example], env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[1:] == [
        "7 * 7 = 49",
        "1.0 nil",
        "0.3333333333333333 nil",
        '0.0 <<"syntax">>',
        "SandboxNotFound: no sandbox has the id 'nobody'; it was never created or is destroyed",
        "the server has ended",
    ]


@pytest.mark.skipif(ELIXIR is None, reason="elixir is not installed")
def test_the_page_for_elixir(env, tmp_path):
    page = (ROOT / "docs" / "erlang.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```elixir\n(.*?)```", page, re.DOTALL)
    script = tmp_path / "page.exs"
    start = "{:ok, _} = Evocell.start_link([])\n"
    script.write_text(
        "\n".join([MSGPAX, blocks[0], start, *blocks[1:], 'IO.puts("as it says")']), encoding="utf-8"
    )
    ended = subprocess.run([ELIXIR, script], env=env, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("as it says\n")

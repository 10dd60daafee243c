"""`boot` changes its interpreter for good, so it runs in one of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import evocell_guest

PROGRAM = """
import json, sys, types

requests, responses = [], []
def call(data):
    if data:
        responses.append(bytes(data))
        return b""
    return requests.pop(0)
sys.modules["_host"] = types.SimpleNamespace(call=call)

import evocell_guest.boot
from evocell_guest.boot import WarmUpError, boot
from evocell_guest.decoding import decode
from evocell_guest.values import encode
import msgpack
try:
    boot(["json", "no_such_module"])
except WarmUpError as error:
    failure = str(error)
# Addresses have 32 bits in the guest and 64 here.
evocell_guest.boot.lasting_objects = lambda: b"lasting"
boot(["json", "colorsys"])
assert responses.pop() == b"lasting"

def ask(**request):
    requests.append(encode(request))
    exec("serve()", vars(sys.modules["__main__"]))
    return decode(responses.pop())

compiled = ask(op="compile", files=[["program.py", b"def f(x): print('hi'); return x"]], policy=None, root="/app")
limits = dict(payload_bytes=1 << 20, payload_items=100, payload_depth=9)
answer = ask(op="call", code=compiled["code"], harness=None, entry="program:f", args=encode([[1], {}]), seed=0, **limits)
facts = {
    "failure": failure,
    "fallback": msgpack.Packer.__module__,
    "answer": answer,
    "info": ask(op="info")["warm"],
    "argv": sys.argv,
    "rehearsal": "rehearsal" in sys.modules,
    "agent_on_path": any(p == AGENT for p in sys.path),
    "numpy": "numpy" in sys.modules,
}
print(json.dumps(facts))
"""


def test_boot_leaves_an_interpreter_that_serves():
    folder = str(Path(evocell_guest.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", f"AGENT = {folder!r}\n{PROGRAM}"],
        env={**os.environ, "PYTHONPATH": folder, "MSGPACK_PUREPYTHON": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stderr == ""
    printed, facts = done.stdout.splitlines()
    assert printed == "hi"
    assert json.loads(facts) == {
        "failure": "the module 'no_such_module' of the warm set cannot be imported in the guest: "
        "ModuleNotFoundError: No module named 'no_such_module'",
        "fallback": "msgpack.fallback",
        "answer": {"t": "completed", "v": 1},
        "info": ["json", "colorsys"],
        "argv": ["evocell"],
        "rehearsal": False,
        "agent_on_path": False,
        "numpy": False,
    }

"""The sandbox finds every kind of failure that a command can have."""

from __future__ import annotations

import pytest
from originals import PLAIN, RECIPE, RUN, TEXT_FILE
from sandbox import SECRET

FAILURES = {
    "traceback: ZeroDivisionError": "1 / 0",
    "traceback: printed": "print('Traceback (most recent call last):', file=sys.stderr); sys.exit(1)",
    "hang": "while True: pass",
    "memory": "bytearray(2 * MEMORY)",
    "crash": "os.abort()",
    "exit code: 3": "sys.exit(3)",
    "message: 0 lines": "sys.exit(2)",
    "message: 2 lines": "print('mtl-nlp: error: a\\nmtl-nlp: error: b', file=sys.stderr); sys.exit(2)",
    "message: further lines": "print('note\\nmtl-nlp: error: a', file=sys.stderr); sys.exit(2)",
    "wrote outside: open": "open('recipe.yaml', 'a')",
    "wrote outside: os.remove": "os.remove('recipe.yaml')",
    "wrote outside: os.rename": "os.rename('recipe.yaml', 'new.yaml')",
    "wrote outside: os.mkdir": "os.mkdir('../new')",
    "network": "import socket; socket.create_connection(('127.0.0.1', 9))",
    "started a process": "import subprocess; subprocess.run(['true'])",
    "started a process: forked": "[os.fork() or os._exit(0) for _ in range(9)]",
    "ran code": "open(case['canary'], 'w')",
    "secret: printed": f"print('{SECRET}')",
    "secret: written": f"open('out/x', 'w').write('{SECRET}')",
    "not finite: printed": "print('[NaN]')",
    "not finite: NaN in x.json": "open('out/x.json', 'w').write('{\"NaN\": NaN}')",
}
"""Failure -> the statement of a command that fails in this way."""


@pytest.mark.parametrize("failure", FAILURES)
def test_the_sandbox_finds(failure, sandbox, originals):
    case = sandbox.new_case(originals[PLAIN])
    (case / "out").mkdir()
    command = f"CPU_SECONDS = 1\ndef main(arguments):\n    {FAILURES[failure]}\n    return 0\n"
    violations = sandbox.run(case, [[]], [case / "out"], before=command).violations
    assert any(str(violation).startswith(failure) for violation in violations), violations


def test_intact_folders_have_no_violation(sandbox, originals):
    for original in originals.values():
        case = sandbox.new_case(original)
        outcome = sandbox.run(case, [["plan", RECIPE], ["predict", RUN, TEXT_FILE]])
        assert outcome.finished.status == 0
        assert not outcome.violations

#!/usr/bin/env bash
# Runs Autobahn's fuzzing client against an echo on the server's own transport and fails on any
# case of groups 1-7, 9 and 10 that fails. It needs CPython 2.7; without one it says so and passes.
#   tests/autobahn/run.sh [CASES]      CASES such as '7.*,9.1.1'; all of the groups by default
set -euo pipefail
cd "$(dirname "$0")/../.."
work=${CARGO_TARGET_DIR:-target}/autobahn
cases=${1:-1.*,2.*,3.*,4.*,5.*,6.*,7.*,9.*,10.*}

# A pyenv shim may be there and have no 2.7 behind it: only one that runs counts.
python=
for candidate in "${PYTHON2:-python2.7}" "$(ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7.*/bin/python2.7 2>/dev/null | tail -1)"; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (2, 7))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "SKIPPED: Autobahn's fuzzing client needs CPython 2.7, and none is here (PYTHON2 names one)" >&2
    exit 0
fi

mkdir -p "$work"
work=$(cd "$work" && pwd)
export PYTHONUSERBASE=$work/python
"$python" -m autobahntestsuite.wstest --help >/dev/null 2>&1 ||
    "$python" -m pip install --quiet --disable-pip-version-check --user autobahntestsuite

profile=${ECHO_PROFILE:-dev}
cargo build --quiet --profile "$profile" --example echo
folder=$profile
[ "$profile" = dev ] && folder=debug
coproc echo { exec "${CARGO_TARGET_DIR:-target}/$folder/examples/echo"; }
trap 'kill "$echo_PID" 2>/dev/null || true' EXIT
read -r line <&"${echo[0]}"
url=${line##* }

rm -rf "$work/report"
printf '{"servers": [{"agent": "echo", "url": "%s"}], "outdir": "%s", "cases": ["%s"], "exclude-cases": [], "exclude-agent-cases": {}}' \
    "$url" "$work/report" "${cases//,/\", \"}" >"$work/cases.json"
"$python" -m autobahntestsuite.wstest --mode fuzzingclient --spec "$work/cases.json" >"$work/wstest.log" 2>&1 ||
    { tail -20 "$work/wstest.log"; exit 1; }

"$python" - "$work/report/index.json" <<'PYTHON'
from __future__ import print_function
import collections, json, sys
cases = json.load(open(sys.argv[1]))["echo"]
counts = collections.Counter((case["behavior"], case["behaviorClose"]) for case in cases.values())
for (behavior, close), count in sorted(counts.items()):
    print("%4d cases: %s, closed %s" % (count, behavior, close))
good = {"OK", "NON-STRICT", "INFORMATIONAL"}
failed = sorted(name for name, case in cases.items() if not {case["behavior"], case["behaviorClose"]} <= good)
for name in failed:
    case = cases[name]
    print("FAILED %s: %s, closed %s" % (name, case["behavior"], case["behaviorClose"]))
print("%d cases, %d failed" % (len(cases), len(failed)))
sys.exit(bool(failed) or len(cases) == 0)
PYTHON

"""`fastkan prove`: which kernels are right on this machine's GPU, and faster than PyTorch's own operators."""

import argparse
import json

from .. import BackendError, verdicts
from ..kinds import EVERYDAY, matching
from ..prove import prove


def run(args: argparse.Namespace) -> int:
    try:
        kinds = matching(args.kinds) if args.kinds else EVERYDAY
        found = prove(args.device, kinds, args.seconds, report=_silent if args.json else _line, job_seconds=args.each)
    except (ValueError, RuntimeError) as error:
        raise BackendError(str(error)) from error
    if args.json:
        print(json.dumps({k: {n: v._asdict() for n, v in of.items()} for k, of in found.items()}, indent=1))
        return 0
    chosen = sum(any(v.verdict == verdicts.FASTER for v in of.values()) for of in found.values())
    then = "programs take them now" if chosen else "programs keep PyTorch's own operators"
    print(f"\n{chosen} of {len(kinds)} kinds of calls have kernels that are right and faster: {then}.")
    if late := [str(kind) for kind in kinds if str(kind) not in found]:
        print(f"Not reached within {args.seconds} s: {' '.join(late)}: more --seconds, or these --kinds.")
    return 0


def _line(kind: object, name: str, verdict: verdicts.Verdict) -> None:
    print(f"{kind}  {name}  {verdict}", flush=True)


def _silent(*_: object) -> None:
    pass

"""Bad input, wholesale: random calls of every public method of every estimator, all judged.

    python benchmarks/fuzz.py --cases 100000 --seed 0 --jobs 2

Each case is one call, or a sequence of calls, with generated rows, weights and parameter values.
It ends in a finite result of the documented shape, or in an error that names what is wrong;
tests/fuzzing says what else is judged. The script prints what happened in how many cases, and each
unexplained case as code that repeats it. It exits with 1 if there is one.
"""

import argparse
import faulthandler
import multiprocessing
import os
import random
import re
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

# Cases that a process gets at once. A new process begins with each part, without what the process
# before has cached.
PART = 2500
# Seconds after which a process that does not answer is ended.
SILENCE = 120


def run_part(seed, first, count, only, connection):
    """Run cases and send what happened in each."""
    faulthandler.enable()
    faulthandler.dump_traceback_later(0.9 * SILENCE * 30, exit=True)
    import torch
    from fuzzing.cases import Unexplained, draw

    torch.set_num_threads(1)
    for number in range(first, first + count):
        connection.send((number, "begins", "", "", 0.0))
        case, begun = None, time.perf_counter()
        try:
            case = draw(random.Random(f"{seed} {number}"), only)
            word, told = case.run(), ""
        except Unexplained as error:
            word, told = "UNEXPLAINED", f"{error}"
        except Exception:
            word, told = "UNEXPLAINED", "the harness failed: " + traceback.format_exc()[-1500:]
        where = "?" if case is None else case.where
        code = str(case) if told else ""
        connection.send((number, word, told, (where, code), time.perf_counter() - begun))
    connection.close()


def results(seed, first, count, only):
    """What happened in a part; a process that ends or is silent is begun again after its case."""
    context = multiprocessing.get_context("spawn")
    number, last = first - 1, first + count
    while number + 1 < last:
        here, there = context.Pipe(duplex=False)
        args = (seed, number + 1, last - number - 1, only, there)
        process = context.Process(target=run_part, args=args)
        process.start()
        there.close()
        running, silence = False, 10 * SILENCE  # imports take long on a busy machine
        while True:
            try:
                if not here.poll(silence):
                    break
                number, word, told, what, seconds = here.recv()
            except EOFError:
                break
            running, silence = word == "begins", SILENCE
            if not running:
                yield number, word, told, what, seconds
        process.kill()
        process.join()
        if running:
            told = f"ended the process (exit code {process.exitcode}) or hung"
            yield number, "UNEXPLAINED", told, ("?", f"# seed {seed}, case {number}"), 0.0
        elif number + 1 < last:
            raise RuntimeError("a process ended before its first case")


def collect(job):
    return list(results(*job))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", help="name of one estimator")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    options = parser.parse_args()

    begun = time.perf_counter()
    firsts = range(options.first, options.first + options.cases, PART)
    last = options.first + options.cases
    parts = [(options.seed, f, min(PART, last - f), options.only) for f in firsts]
    words, where, seconds, unexplained = Counter(), Counter(), Counter(), {}
    n_done = 0
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(options.jobs) as pool:
        for part in pool.map(collect, parts):
            for number, word, told, (place, code), taken in part:
                words[word] += 1
                where[place, word] += 1
                seconds[place.partition(".")[0]] += taken
                if word == "UNEXPLAINED":
                    kind = re.sub(r"names none of \[.*?\]", "names none", told)
                    kind = re.sub(r"[-\d.e+]+", "#", kind)[:80] + told[-50:]
                    if kind not in unexplained:
                        print(f"\n--- number {number}:\n{told}\n{code}\n", flush=True)
                    unexplained.setdefault(kind, []).append((number, told, code))
            n_done += len(part)
            n_bad = words["UNEXPLAINED"]
            print(
                f"{n_done} cases, {n_bad} unexplained, {time.perf_counter() - begun:.0f} s",
                flush=True,
            )

    print(f"\n{'estimator and method':<45}{'cases':>8}{'results':>9}{'errors':>8}{'other':>7}")
    for place in sorted({place for place, _ in where}):
        found = {word: n for (p, word), n in where.items() if p == place}
        n_results = found.get("result", 0)
        n_errors = sum(n for word, n in found.items() if word.endswith("Error"))
        total = sum(found.values())
        print(f"{place:<45}{total:>8}{n_results:>9}{n_errors:>8}{total - n_results - n_errors:>7}")
    print("\noutcomes:", ", ".join(f"{n} {word}" for word, n in words.most_common()))
    print("seconds:", ", ".join(f"{name} {s:.0f}" for name, s in seconds.most_common()))
    for kind in sorted(unexplained, key=lambda kind: -len(unexplained[kind])):
        number, told, _ = unexplained[kind][0]
        print(f"{len(unexplained[kind])} cases like number {number}: {told[:200]}")
    sys.exit(1 if unexplained else 0)


if __name__ == "__main__":
    main()

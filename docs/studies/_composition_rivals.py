"""Other libraries' epsilon and power of subsampled Gaussian steps, each in seconds.

Reads one setting a line, as JSON, and writes one answer a line. Runs in an interpreter
with `composition-requirements.txt`, which has no fstat.
"""

import json
import resource
import signal
import sys
import time
import warnings

LIMIT = 5.0  # seconds of CPU for one value


def losses(case):
    from dp_accounting.pld import privacy_loss_distribution

    one = privacy_loss_distribution.from_gaussian_mechanism(
        1 / case["mu"],
        sampling_prob=case["share"],
        value_discretization_interval=1e-4,
    )
    return one.self_compose(case["count"])


def dp_accounting(case):
    return float(losses(case).get_epsilon_for_delta(case["delta"])), None


def prv_accountant(case):
    import prv_accountant as prv

    step = prv.PoissonSubsampledGaussianMechanism(case["share"], 1 / case["mu"])
    accountant = prv.PRVAccountant(
        [step],
        max_self_compositions=[case["count"]],
        eps_error=0.01,
        delta_error=case["delta"] / 1000,
    )
    return float(accountant.compute_epsilon(case["delta"], [case["count"]])[1]), None


def riskcal(case):
    from riskcal.analysis import get_beta_from_pld

    return None, float(1 - get_beta_from_pld(losses(case), alpha=case["alpha"]))


def late(*_):
    raise TimeoutError("over the limit")


def stop_late():
    """End the process where a value takes longer, in a call that no signal ends."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    end = int(time.process_time() + LIMIT) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (end, most))


def main():
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, late)
    ask = {f.__name__: f for f in (dp_accounting, prv_accountant, riskcal)}[sys.argv[1]]
    for line in sys.stdin:
        start = time.process_time()
        stop_late()
        signal.setitimer(signal.ITIMER_PROF, LIMIT)
        try:
            epsilon, power = ask(json.loads(line))
            answer = {"epsilon": epsilon, "power": power}
        except Exception as error:
            answer = {"refused": type(error).__name__}
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        answer["seconds"] = time.process_time() - start
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

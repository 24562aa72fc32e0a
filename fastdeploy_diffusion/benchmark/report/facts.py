"""What a result was measured with, as pairs of words."""

from fastdeploy_diffusion.benchmark.result import BenchmarkResult


def list_facts(result: BenchmarkResult) -> list[list[str]]:
    """Name the machine, the versions and the settings."""
    machine = result.machine
    memory = machine.get("memory") or {}
    gpus = [", ".join(gpu.values()) for gpu in machine.get("gpus", ())]
    facts = {
        "started": result.started,
        "CPU": machine.get("cpu") or "unknown",
        "instructions": " ".join(machine.get("cpu_flags") or ["unknown"]),
        "cores": f"{machine.get('usable_cores')} usable of {machine.get('cores')}",
        "memory": f"{memory['total'] / 2**30:.1f} GiB" if memory else "unknown",
        "GPU": "; ".join(gpus) or "none",
        "system": machine.get("system", "unknown"),
        "Python": result.python,
        "packages": ", ".join(f"{name} {found}" for name, found in result.packages.items()),
        "source": result.git_revision or "no checkout",
        "model": ", random weights: ".join(
            filter(None, (result.model.name, result.model.random_weights))
        ),
        "weights, sha256": result.model.digest,
        "configuration, sha256": result.config_digest,
    }
    for row in result.rows:
        case = row.case
        if not case.is_own:
            settings = ", ".join(f"{name} {value}" for name, value in row.settings.items())
            facts[f"{case.name}, {case.work}"] = settings
        elif differs := [
            f"{each['name']} on {each['engine']} in {each['precision']}"
            for each in row.settings.get("components", ())
            if (each["engine"], each["precision"]) != (case.engine, case.precision)
        ]:
            facts[f"{case.name}, {case.work}"] = "; ".join(differs)
    return [[name, value] for name, value in facts.items()]

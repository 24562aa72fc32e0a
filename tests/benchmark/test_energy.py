from fastdeploy_diffusion.benchmark.energy import EnergyMeter


def write_counter(root, name, now, full=10_000_000):
    folder = root / name
    folder.mkdir(exist_ok=True)
    (folder / "energy_uj").write_text(f"{now}\n")
    (folder / "max_energy_range_uj").write_text(f"{full}\n")


def test_joules_of_all_packages(tmp_path):
    write_counter(tmp_path, "intel-rapl:0", 1_000_000)
    write_counter(tmp_path, "intel-rapl:1", 9_500_000)
    write_counter(tmp_path, "intel-rapl:0:0", 0)  # cores, which the package counts
    meter = EnergyMeter(tmp_path)
    write_counter(tmp_path, "intel-rapl:0", 3_000_000)
    write_counter(tmp_path, "intel-rapl:1", 499_999)  # began again at 0
    write_counter(tmp_path, "intel-rapl:0:0", 5_000_000)
    assert meter.obstacle == ""
    assert meter.read_joules() == 3.0


def test_a_machine_without_counters(tmp_path):
    meter = EnergyMeter(tmp_path)
    assert "no energy counters" in meter.obstacle
    assert meter.read_joules() is None


def test_counters_that_cannot_be_read(tmp_path):
    (tmp_path / "intel-rapl:0").mkdir()
    meter = EnergyMeter(tmp_path)
    assert "root" in meter.obstacle
    assert meter.read_joules() is None

import dataclasses

import jax
import pytest

from mjx.gpus.data_sheet import data_sheet
from mjx.gpus.target import SPECIFICATIONS, device_kind, gpu_names
from mjx.metrics.peak_flops import gpu_peak_flops, measure_cpu_flops, peak_flops
from mjx.trees import read_yaml


@dataclasses.dataclass
class FakeDevice:
    device_kind: str
    platform: str = "gpu"
    process_index: int = 0


@pytest.mark.parametrize(
    ("name", "multiprocessors", "per_clock", "gigahertz"),
    [
        # The vendors' white papers: multiprocessors (AMD: compute units), operations that the tensor cores of
        # one do in a clock with bfloat16, and the boost clock, for Hopper and B200 that of the data sheets'
        # rates. With float32 accumulation: half as many in GeForce cards and the L40.
        ("NVIDIA A100-SXM4-80GB", 108, 2048, 1.41),
        ("NVIDIA A800-SXM4-80GB", 108, 2048, 1.41),
        ("NVIDIA A30", 56, 2048, 1.44),
        ("NVIDIA A40", 84, 1024, 1.74),
        ("NVIDIA A10", 72, 1024, 1.695),
        ("NVIDIA RTX A6000", 84, 1024, 1.8),
        ("NVIDIA GeForce RTX 3090", 82, 512, 1.695),
        ("NVIDIA GeForce RTX 3090 Ti", 84, 512, 1.86),
        ("NVIDIA GeForce RTX 4090", 128, 512, 2.52),
        ("NVIDIA GeForce RTX 5090", 170, 512, 2.407),
        ("NVIDIA L4", 60, 1024, 2.04),
        ("NVIDIA L40", 142, 512, 2.49),
        ("NVIDIA L40S", 142, 1024, 2.52),
        ("NVIDIA H100 80GB HBM3", 132, 4096, 1.83),
        ("NVIDIA H800", 132, 4096, 1.83),
        ("NVIDIA H200", 132, 4096, 1.83),
        ("NVIDIA GH200 480GB", 132, 4096, 1.83),
        ("NVIDIA H100 PCIe", 114, 4096, 1.62),
        ("NVIDIA H100 NVL", 132, 4096, 1.545),
        ("NVIDIA H200 NVL", 132, 4096, 1.545),
        ("NVIDIA B200", 148, 8192, 1.856),
        ("NVIDIA B300 SXM6 AC", 148, 8192, 1.856),
        ("AMD Instinct MI300X", 304, 2048, 2.1),
        ("AMD Instinct MI325X", 304, 2048, 2.1),
        ("AMD Instinct MI355X", 256, 4096, 2.4),
    ],
)
def test_the_dense_peak_of_a_gpu_is_what_its_tensor_cores_can_do_in_a_second(
    name, multiprocessors, per_clock, gigahertz
):
    peak = multiprocessors * per_clock * gigahertz * 1e9
    tolerance = 0.035 if name == "NVIDIA L4" else 0.015  # the L4's data sheet is 3% below its boost clock
    assert gpu_peak_flops(name, "bfloat16") == pytest.approx(peak, rel=tolerance)


@pytest.mark.parametrize("name", gpu_names())
def test_utilisation_is_reckoned_with_the_rate_that_plans_are_made_with(name):
    assert gpu_peak_flops(device_kind(name), "bfloat16") == data_sheet(name).tensor_flops


@pytest.mark.parametrize("name", [*gpu_names(), *read_yaml(SPECIFICATIONS / "peaks.yaml")])
def test_half_the_bits_of_a_number_are_twice_the_rate(name):
    half, tolerance = gpu_peak_flops(name, "bfloat16"), 0.015  # data sheets round
    assert gpu_peak_flops(name, "float16") == half
    float32, float8 = gpu_peak_flops(name, "float32"), gpu_peak_flops(name, "float8")
    assert float32 is None or float32 == pytest.approx(half / 2, rel=tolerance)
    assert float8 is None or float8 == pytest.approx(half * 2, rel=tolerance)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("NVIDIA H100 PCIe", "NVIDIA H100 80GB HBM3"),
        ("NVIDIA H200 NVL", "NVIDIA H200"),
        ("NVIDIA GB200", "NVIDIA B200"),
        ("NVIDIA L40S", "NVIDIA L40"),
        ("NVIDIA GeForce RTX 3090 Ti", "NVIDIA GeForce RTX 3090"),
    ],
)
def test_the_longest_name_counts(name, other):
    assert gpu_peak_flops(name, "bfloat16") != gpu_peak_flops(other, "bfloat16")


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("NVIDIA A100-SXM4-80GB", "float8"),
        ("Some GPU 9000", "bfloat16"),
        ("Some XH100", "bfloat16"),
        ("Some XA800", "bfloat16"),
        ("NVIDIA A10G", "bfloat16"),
    ],
)
def test_an_unknown_peak_is_none_and_never_a_guess(name, precision):
    assert gpu_peak_flops(name, precision) is None


def test_peaks_add_up_over_devices_and_one_unknown_device_makes_the_sum_unknown():
    h100 = FakeDevice("NVIDIA H100 80GB HBM3")
    assert peak_flops([h100] * 8, "bfloat16") == 8 * data_sheet("h100").tensor_flops
    assert peak_flops([h100, FakeDevice("Some GPU 9000")], "bfloat16") is None


def test_the_cpus_peak_is_measured_once_for_the_machine_however_many_devices_it_shows():
    with jax.transfer_guard("disallow"):
        one = peak_flops([FakeDevice("cpu", "cpu")], "float32")
    assert 1e9 < one < 1e14
    assert peak_flops([FakeDevice("cpu", "cpu") for _ in range(8)], "float32") == one
    assert peak_flops([FakeDevice("cpu", "cpu", i) for i in range(2)], "float32") == 2 * one
    assert measure_cpu_flops("float32") == one

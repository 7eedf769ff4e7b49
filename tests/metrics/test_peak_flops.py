import dataclasses

import jax
import pytest

from mjx.metrics.peak_flops import gpu_peak_flops, measure_cpu_flops, peak_flops


@dataclasses.dataclass
class FakeDevice:
    device_kind: str
    platform: str = "gpu"
    process_index: int = 0


@pytest.mark.parametrize(
    ("name", "precision", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989.4),
        ("NVIDIA H100 80GB HBM3", "float32", 494.7),
        ("NVIDIA H100 80GB HBM3", "float8", 1978.9),
        ("NVIDIA H100 PCIe", "bfloat16", 756),
        ("NVIDIA H100 NVL", "bfloat16", 835.5),
        ("NVIDIA H200", "bfloat16", 989.4),
        ("NVIDIA GH200 480GB", "bfloat16", 989.4),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312),
        ("NVIDIA A100-PCIE-40GB", "float16", 312),
        ("NVIDIA A10", "bfloat16", 125),
        ("NVIDIA L4", "bfloat16", 121),
        ("NVIDIA L40S", "bfloat16", 362),
        ("NVIDIA B200", "bfloat16", 2250),
        ("NVIDIA GB200", "bfloat16", 2500),
        ("AMD Instinct MI300X", "bfloat16", 1307.4),
    ],
)
def test_the_dense_peak_of_a_gpu_is_found_by_its_drivers_name(name, precision, tflops):
    assert gpu_peak_flops(name, precision) == pytest.approx(tflops * 1e12)


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
    assert peak_flops([h100] * 8, "bfloat16") == pytest.approx(8 * 989.4e12)
    assert peak_flops([h100, FakeDevice("Some GPU 9000")], "bfloat16") is None


def test_the_cpus_peak_is_measured_once_for_the_machine_however_many_devices_it_shows():
    with jax.transfer_guard("disallow"):
        one = peak_flops([FakeDevice("cpu", "cpu")], "float32")
    assert 1e9 < one < 1e14
    assert peak_flops([FakeDevice("cpu", "cpu") for _ in range(8)], "float32") == one
    assert peak_flops([FakeDevice("cpu", "cpu", i) for i in range(2)], "float32") == 2 * one
    assert measure_cpu_flops("float32") == one

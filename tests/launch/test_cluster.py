"""Cluster detection on environments that real launchers left (tests/goldens/launch/environments.json).

Recorded with Slurm 22.05 on two nodes, Open MPI 4.1.4 and 5.0.11, MPICH 4.0.2, Intel MPI 2021.19 and torchrun
2.13.
"""

import json
from pathlib import Path

import pytest

from mjx.errors import InputError
from mjx.launch import gpus
from mjx.launch.cluster import Cluster, detect, port_for, split_address
from mjx.launch.gpus import local_gpus, visible_gpus
from mjx.launch.hostlist import expand_counts, expand_hosts

RECORDED = json.loads((Path(__file__).parents[1] / "goldens" / "launch" / "environments.json").read_text())


@pytest.mark.parametrize(
    ("name", "launcher", "host", "local"),
    [
        ("slurm", "slurm", "n1", 1),
        ("slurm_pmi2", "slurm", "n1", 1),
        ("slurm_first_step", "slurm", "n1", 1),
        ("slurm_second_step", "slurm", "n1", 1),
        ("openmpi4", "openmpi", "127.0.0.1", 2),
        ("openmpi5", "openmpi", "127.0.0.1", 2),
        ("openmpi4_in_slurm", "openmpi", "192.0.2.2", 1),
        ("mpich", "pmi", None, 2),
        ("intelmpi", "pmi", None, 2),
        ("mpich_in_slurm", "pmi", None, 1),
        ("torchrun", "torchrun", "localhost", 2),
        ("torchrun_static", "torchrun", "127.0.0.1", 2),
    ],
)
def test_recorded_environments_give_two_processes_that_agree(name, launcher, host, local):
    clusters = [detect(environment) for environment in RECORDED[name]]
    assert [cluster.process_id for cluster in clusters] == [0, 1]
    for cluster in clusters:
        assert (cluster.launcher, cluster.num_processes, cluster.local_num_processes) == (launcher, 2, local)
    assert clusters[0].coordinator == clusters[1].coordinator
    if host is None:  # process 0's address comes through the process manager
        assert clusters[0].coordinator is None
    else:
        assert split_address(clusters[0].coordinator or "")[0] == host
    local_ids = [cluster.local_process_id for cluster in clusters]
    assert local_ids == ([0, 1] if local == 2 else [0, 0])


@pytest.mark.parametrize("name", ["slurm_batch_script", "slurm_batch_from_step"])
def test_a_bare_batch_script_is_one_process_even_with_an_inherited_step(name):
    assert detect(RECORDED[name][0]) == Cluster()


def test_an_empty_environment_is_one_process():
    assert detect({}) == Cluster()
    assert detect({"MASTER_ADDR": "n1", "MASTER_PORT": "29500"}) == Cluster()


def test_two_steps_of_one_slurm_job_have_two_ports():
    ports = [
        split_address(detect(RECORDED[name][0]).coordinator or "")[1]
        for name in ("slurm_first_step", "slurm_second_step")
    ]
    assert ports[0] != ports[1]
    assert all(61440 <= port <= 65535 for port in ports)
    assert len({port_for("slurm 7", step) for step in range(4096)}) == 4096


def test_torchrun_leaves_master_port_to_its_own_store():
    environment = RECORDED["torchrun_static"][0]
    assert split_address(detect(environment).coordinator or "")[1] != int(environment["MASTER_PORT"])
    by_hand = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "n1", "MASTER_PORT": "29500"}
    assert detect(by_hand).coordinator == "n1:29500"


def test_mjx_variables_settle_it_alone_and_correct_a_launcher():
    explicit = {"MJX_COORDINATOR": "n9:1234", "MJX_NUM_PROCESSES": "8", "MJX_PROCESS_ID": "5"}
    cluster = detect({**RECORDED["slurm"][1], **explicit})
    assert (cluster.launcher, cluster.coordinator, cluster.process_id) == ("mjx", "n9:1234", 5)
    corrected = detect({**RECORDED["slurm"][1], "MJX_COORDINATOR": "10.0.0.1:9999"})
    assert (corrected.launcher, corrected.coordinator, corrected.process_id) == ("slurm", "10.0.0.1:9999", 1)
    ported = detect({**RECORDED["slurm"][1], "MJX_COORDINATOR_PORT": "7777"})
    assert ported.coordinator == "n1:7777"
    assert detect({**RECORDED["mpich"][1], "MJX_COORDINATOR": "n1:5"}).coordinator == "n1:5"


def test_a_rank_without_a_size_completes_the_mjx_variables():
    said = {"MJX_COORDINATOR": "job-0.svc:1234", "MJX_NUM_PROCESSES": "4"}
    assert detect({**said, "JOB_COMPLETION_INDEX": "3"}).process_id == 3
    assert detect({**said, "PMIX_RANK": "2"}).process_id == 2


def test_a_stray_world_size_does_not_hide_slurm():
    assert detect({**RECORDED["slurm"][1], "WORLD_SIZE": "2", "MASTER_ADDR": "n1"}).launcher == "slurm"


def test_open_mpi_5_takes_the_first_host_of_the_slurm_job():
    environment = {
        **RECORDED["openmpi5"][1],
        "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
        "SLURM_JOB_NODELIST": "g[07-09]",
    }
    assert (detect(environment).coordinator or "").startswith("g07:")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"RANK": "1"}, ["RANK is set", "WORLD_SIZE, MASTER_ADDR and MASTER_PORT"]),
        ({"RANK": "1", "WORLD_SIZE": "2"}, ["RANK and WORLD_SIZE", "MASTER_ADDR and MASTER_PORT"]),
        ({"OMPI_COMM_WORLD_RANK": "1"}, ["OMPI_COMM_WORLD_SIZE"]),
        ({"PMI_RANK": "0"}, ["PMI_SIZE"]),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, ["PMI_FD", "MJX_COORDINATOR"]),
        ({"MJX_NUM_PROCESSES": "2"}, ["MJX_NUM_PROCESSES", "MJX_COORDINATOR and MJX_PROCESS_ID"]),
        ({"MJX_COORDINATOR": "a:1", "MJX_PROCESS_ID": "0"}, ["MJX_NUM_PROCESSES"]),
        (
            {"MJX_COORDINATOR": "a:1", "MJX_NUM_PROCESSES": "2", "MJX_PROCESS_ID": "2"},
            ["process_id = 2", "0 ... "],
        ),
        ({"MJX_COORDINATOR": "a", "MJX_NUM_PROCESSES": "2", "MJX_PROCESS_ID": "1"}, ["'a'", "host:port"]),
        ({"RANK": "x", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, ["RANK = 'x'"]),
        (
            {**RECORDED["slurm"][1], "MJX_NUM_PROCESSES": "4"},
            ["MJX_NUM_PROCESSES = 4", "slurm, which says 2"],
        ),
        (
            {
                **RECORDED["slurm"][1],
                "RANK": "0",
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "n1",
                "MASTER_PORT": "29500",
            },
            ["RANK = 0", "slurm", "process 1 of 2"],
        ),
        ({**RECORDED["openmpi5"][1], "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, ["-x MJX_COORDINATOR"]),
    ],
)
def test_a_partial_or_contradictory_environment_is_refused_by_name(environment, words):
    with pytest.raises(InputError) as caught:
        detect(environment)
    for word in words:
        assert word in str(caught.value)


def test_host_lists_expand_as_slurm_writes_them():
    assert expand_hosts("n[1-3,7],m2") == ("n1", "n2", "n3", "n7", "m2")
    assert expand_hosts("node[008-010]") == ("node008", "node009", "node010")
    assert expand_hosts("r[1-2]n[01-02]-ib") == ("r1n01-ib", "r1n02-ib", "r2n01-ib", "r2n02-ib")
    assert expand_hosts("login") == ("login",)
    assert expand_counts("2(x3),1") == (2, 2, 2, 1)
    for wrong in ("n[1-", "n[3-1]", "n[a]", ""):
        with pytest.raises(InputError, match="host list"):
            expand_hosts(wrong)


def _gpus(name: str, process_id: int, visible: int) -> tuple[int, ...] | None:
    return local_gpus(detect(RECORDED[name][process_id]), visible)


def test_gpus_bound_by_the_launcher_are_all_taken_and_shared_ones_are_divided():
    # srun --gpus-per-task=1 shows each task one GPU numbered 0; --gpus-per-task=2 two of the host's four.
    assert _gpus("slurm_gpu_pertask1", 3, 1) is None
    assert _gpus("slurm_gpu_pertask2", 1, 2) is None
    # srun --gpus-per-node=4 with four tasks, or one, shows each all four.
    assert [_gpus("slurm_gpu_node4", process, 4) for process in range(4)] == [(0,), (1,), (2,), (3,)]
    assert _gpus("slurm_gpu_one4", 1, 4) is None
    assert _gpus("slurm_gpu_tpg", 2, 1) is None
    assert [_gpus("torchrun", process, 8) for process in (0, 1)] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert _gpus("openmpi4", 1, 2) == (1,)
    assert _gpus("slurm", 0, 0) is None
    assert local_gpus(Cluster(), 8) is None


def test_gpus_that_cannot_be_shared_are_an_error():
    with pytest.raises(InputError, match="2 processes on this host cannot share 3 visible GPUs"):
        _gpus("openmpi4", 0, 3)
    place = {"MJX_COORDINATOR": "127.0.0.1:9", "MJX_NUM_PROCESSES": "2", "MJX_PROCESS_ID": "1"}
    local = {"MJX_LOCAL_PROCESS_ID": "1", "MJX_LOCAL_NUM_PROCESSES": "2"}
    with pytest.raises(InputError, match="cannot share 1 visible"):
        local_gpus(detect({**place, **local}), 1)


def test_visible_gpus_are_counted_as_cuda_does():
    for listed, count in (("0", 1), ("2,3", 2), ("", 0), ("-1", 0), ("0,1,-1,2", 2), ("NoDevFiles", 0)):
        assert visible_gpus({"CUDA_VISIBLE_DEVICES": listed}) == count
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "GPU-8932f937,MIG-GPU-1"}) == 2


@pytest.mark.parametrize(
    ("environment", "plugin", "installed", "expected"),
    [
        ({}, True, 0, {"JAX_PLATFORMS": "cpu"}),
        ({}, True, 8, {}),
        ({}, False, 0, {}),
        ({"JAX_PLATFORMS": "cuda"}, True, 0, {"JAX_PLATFORMS": "cuda"}),
    ],
)
def test_a_cuda_plugin_without_a_gpu_is_left_asleep(environment, plugin, installed, expected, monkeypatch):
    monkeypatch.setattr(gpus, "cuda_plugin_installed", lambda: plugin)
    monkeypatch.setattr(gpus, "installed_gpus", lambda: installed)
    gpus.choose_platform(environment)
    assert environment == expected

"""The PMI-1 wire protocol, as far as passing process 0's address on needs it.

MPICH's and Intel MPI's process manager (Hydra) tells a process its rank and size by the environment, and
nothing about where process 0 is. But it leaves an open socket, `PMI_FD`, on which lines such as `cmd=put` and
`cmd=get` reach a key-value space that all processes share. Written after the protocol's description in
MPICH's source documentation (PMI version 1.1).
"""

import socket
from collections.abc import Mapping

from mjx.errors import InputError
from mjx.launch.cluster import Cluster


def pass_on_address(cluster: Cluster, environment: Mapping[str, str], address: str) -> str:
    """Process 0's `address` in every process. `address` is read in process 0 only; all processes must call
    this.

    The connection is finished with afterwards, so that the process manager does not take a later exit for a
    crash; MPI itself cannot be started in this process any more.
    """
    with socket.socket(fileno=int(environment["PMI_FD"])) as connection:
        ask = _Conversation(connection)
        ask("cmd=init pmi_version=1 pmi_subversion=1", "response_to_init")
        space = ask("cmd=get_my_kvsname", "my_kvsname")["kvsname"]
        if cluster.process_id == 0:
            ask(f"cmd=put kvsname={space} key=mjx-coordinator value={address}", "put_result")
        ask("cmd=barrier_in", "barrier_out")
        found = ask(f"cmd=get kvsname={space} key=mjx-coordinator", "get_result")["value"]
        ask("cmd=finalize", "finalize_ack")
    return found


class _Conversation:
    """One request, one reply, a line each; a reply is words of the form name=value."""

    def __init__(self, connection: socket.socket):
        self._connection = connection
        self._received = b""

    def __call__(self, request: str, reply: str) -> dict[str, str]:
        self._connection.sendall(request.encode() + b"\n")
        while b"\n" not in self._received:
            chunk = self._connection.recv(4096)
            if not chunk:
                raise InputError(
                    f"The MPI process manager closed PMI_FD after {request.split()[0]}; set "
                    "MJX_COORDINATOR=HOST:PORT to do without it."
                )
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        words = dict(word.split("=", 1) for word in line.decode().split() if "=" in word)
        if words.get("cmd") != reply or words.get("rc", "0") != "0":
            raise InputError(
                f"The MPI process manager answered {line.decode()!r} to {request!r}; set "
                "MJX_COORDINATOR=HOST:PORT to do without it."
            )
        return words

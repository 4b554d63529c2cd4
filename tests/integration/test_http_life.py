"""The life of the service: start, systemd's sockets and notices, crashes and vanished clients in the middle, stop."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from audio_files import ffmpeg
from paths import RECORDINGS
from running_service import (
    ADAPTERS,
    EXACT,
    Service,
    end,
    environment,
    free_port,
    is_running,
    process_stat,
    run_cli,
    running_service,
    submit,
    wait_for,
)
from sealed_packages import SMALL, rewrite
from whisper_package.models import package_directory
from whisper_package.package import packaged_models
from whisper_xeon.__main__ import _sign_of_life
from whisper_xeon.engine.pool import EnginePool
from whisper_xeon.shares import Caller
from whisper_xeon.systemd import Notifier
from whisper_xeon.web.connection_slots import ConnectionSlots
from whisper_xeon.web.server import Response, Server

LONG = RECORDINGS / "long.wav"
LONG_BEGINS = b"two blue yes"


@pytest.fixture(scope="module", params=ADAPTERS)
def adapter(request):
    return request.param


@pytest.fixture(scope="module")
def service(artifacts_dir, adapter):
    with running_service(artifacts_dir, WHISPER_ENGINES="2", WHISPER_ADAPTER=adapter) as running:
        yield running


@pytest.fixture
def no_package(artifacts_dir, tmp_path) -> Path:
    """A folder whose package of `small` has lost its library."""
    shutil.copytree(artifacts_dir / "whisper_small_xeon", tmp_path / "whisper_small_xeon")
    (tmp_path / "whisper_small_xeon" / "libwhisper.so.1").unlink()
    return tmp_path


def busy(service: Service) -> None:
    """Wait until an engine computes: the processor time of a worker goes up."""

    def ticks() -> dict[int, int]:
        return {pid: int(stat[11]) for pid in service.worker_pids() if (stat := process_stat(pid))}

    before = ticks()
    wait_for(lambda: any(now > before.get(pid, 0) + 5 for pid, now in ticks().items()))


def test_ten_parallel_requests_survive_segfaults_of_all_workers(service):
    recordings = list(EXACT)[:10]

    def kill_workers() -> None:
        for pid in service.worker_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSEGV)

    with ThreadPoolExecutor(10) as clients:
        answers = [clients.submit(service.transcribe, recording) for recording in recordings]
        busy(service)
        kill_workers()
        # Those hit above have had their second try.
        wait_for(lambda: sum(answer.done() for answer in answers) >= 5 and len(service.worker_pids()) == 2)
        kill_workers()
        texts = [answer.result().json.get("text") for answer in answers]
    assert texts == [EXACT[recording]["small"] for recording in recordings]
    wait_for(lambda: len(service.events("engine worker lost")) == 4)


def test_a_request_that_kills_every_worker_is_told_so_and_the_next_one_served(service):
    with submit(service, LONG) as sock:
        for _ in range(2):
            busy(service)
            for pid in service.worker_pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSEGV)
        answer = sock.recv(65536)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b'"code": "engine_crashed"' in answer
    assert service.transcribe("fr-01.wav").json["text"] == EXACT["fr-01.wav"]["small"]


def test_a_client_that_goes_away_frees_its_engine(service):
    gone = [submit(service, LONG) for _ in range(2)]
    busy(service)
    for sock in gone:
        sock.close()
    wait_for(lambda: len([line for line in service.events("request") if line["status"] == 499]) == 2)
    assert service.transcribe("fr-01.wav").status == 200


def test_a_full_queue_is_503_with_retry_after(artifacts_dir):
    with running_service(artifacts_dir, WHISPER_ENGINES="1", WHISPER_QUEUE="0") as service, submit(service, LONG):
        busy(service)
        answer = service.transcribe("fr-01.wav")
        assert (answer.status, answer.error["code"], answer.error["type"]) == (503, "queue_full", "server_error")
        assert int(answer.headers["retry-after"]) >= 1


def test_uploads_over_the_memory_for_all_of_them_are_503_until_one_ends(artifacts_dir):
    settings = {"WHISPER_SPOOL_MB": "2", "WHISPER_MAX_UPLOAD_MB": "1", "WHISPER_MAX_AUDIO_SECONDS": "10"}
    head = b"POST /transcribe HTTP/1.1\r\nHost: a\r\nContent-Type: audio/wav\r\nContent-Length: 1048576\r\n\r\n"
    with running_service(artifacts_dir, **settings) as service:
        with contextlib.ExitStack() as stack:
            for _ in range(2):  # two uploads that stop just before their end
                unfinished = stack.enter_context(socket.create_connection(("127.0.0.1", service.port)))
                unfinished.sendall(head + bytes(1048000))
            wait_for(lambda: _spooled(service) == 2 * 1048000)
            answer = service.transcribe("fr-01.wav")
            assert (answer.status, answer.error["code"]) == (503, "spool_full")
            assert answer.headers["retry-after"]
        wait_for(lambda: service.transcribe("fr-01.wav").status == 200)


def test_decoded_audio_is_counted_while_it_is_decoded(artifacts_dir, tmp_path):
    settings = {"WHISPER_SPOOL_MB": "2", "WHISPER_MAX_UPLOAD_MB": "1", "WHISPER_MAX_AUDIO_SECONDS": "10"}
    clip = tmp_path / "long.ogg"  # some kB that become 576 kB
    command = ["ffmpeg", "-loglevel", "error", "-i", RECORDINGS / "silence.wav", "-af", "apad=whole_dur=9", clip]
    subprocess.run(command, check=True)
    head = b"POST /transcribe HTTP/1.1\r\nHost: a\r\nContent-Type: audio/wav\r\nContent-Length: 1048576\r\n\r\n"
    with running_service(artifacts_dir, **settings) as service:
        sizes = (1048000, 900000)
        with contextlib.ExitStack() as stack:
            for size in sizes:
                unfinished = stack.enter_context(socket.create_connection(("127.0.0.1", service.port)))
                unfinished.sendall(head + bytes(size))
            wait_for(lambda: _spooled(service) == sum(sizes))
            assert service.transcribe("fr-01.wav").status == 200
            answer = service.post_form("/transcribe", ("file", clip))
            assert (answer.status, answer.error["code"]) == (503, "spool_full")
        wait_for(lambda: service.post_form("/transcribe", ("file", clip)).status == 200)


def _spooled(service: Service) -> int:
    """Return the bytes in the service's anonymous files."""
    total = 0
    for entry in Path(f"/proc/{service.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed in the meantime
            total += entry.stat().st_size if "memfd" in str(entry.readlink()) else 0
    return total


def test_a_transcription_over_its_time_is_504(artifacts_dir, adapter, tmp_path):
    ffmpeg("-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono", "-t", "0.2", tmp_path / "short.wav")
    settings = {"WHISPER_ENGINES": "1", "WHISPER_REQUEST_TIMEOUT": "1", "WHISPER_ADAPTER": adapter}
    with running_service(artifacts_dir, **settings) as service:
        with service.workers_held(), submit(service, tmp_path / "short.wav", vad_filter="false") as sock:
            assert sock.recv(65536).startswith(b"HTTP/1.1 504 ")
        wait_for(lambda: service.get("/readyz").status == 200)


def test_whisper_cli_which_tells_of_no_window_may_compute_longer_than_the_timeout(artifacts_dir, tmp_path):
    ffmpeg("-stream_loop", "80", "-i", RECORDINGS / "en-00.wav", tmp_path / "long.wav")
    settings = {"WHISPER_ENGINES": "1", "WHISPER_THREADS": "1", "WHISPER_REQUEST_TIMEOUT": "1"}
    with running_service(artifacts_dir, WHISPER_ADAPTER="cli", **settings) as service:
        answer = service.post_form("/transcribe", ("file", tmp_path / "long.wav"))
    assert (answer.status, answer.json["duration"] > 200) == (200, True)
    assert answer.json["processing_seconds"] > 2


def test_stopped_workers_are_replaced_and_the_service_is_not_ready_meanwhile(artifacts_dir, adapter):
    with running_service(artifacts_dir, WHISPER_ENGINES="2", WHISPER_ADAPTER=adapter) as service:
        wait_for(lambda: len(service.worker_pids()) == 2)
        for pid in service.worker_pids():
            os.kill(pid, signal.SIGSTOP)
        threading.Event().wait(0.2)  # as long as an answer may be remembered
        ready = service.get("/readyz")
        assert (ready.status, ready.json["status"]) == (503, "hanging")
        wait_for(lambda: service.get("/readyz").status == 200)
        for pid in service.worker_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        answer = service.transcribe("fr-01.wav")
        assert (answer.status, answer.json["text"]) == (200, EXACT["fr-01.wav"]["small"])
        assert service.get("/readyz").status == 200


def test_engines_that_go_on_hanging_are_503_with_retry_after(artifacts_dir):
    with running_service(artifacts_dir, WHISPER_ENGINES="1") as service, service.workers_held():
        answer = service.transcribe("fr-01.wav")
        assert (answer.status, answer.error["code"]) == (503, "engines_hang")
        assert answer.headers["retry-after"]


def test_sigterm_finishes_the_running_request(artifacts_dir, adapter):
    with (
        running_service(artifacts_dir, WHISPER_ADAPTER=adapter) as service,
        submit(service, LONG) as sock,
    ):
        busy(service)
        service.process.send_signal(signal.SIGTERM)
        received = b"".join(iter(lambda: sock.recv(65536), b""))
        assert received.startswith(b"HTTP/1.1 200 OK")
        assert LONG_BEGINS in received
        assert service.process.wait(20) == 0


def test_sigterm_to_the_whole_group_as_a_terminal_sends_it_finishes_the_running_request(artifacts_dir, adapter):
    with (
        running_service(artifacts_dir, WHISPER_ADAPTER=adapter) as service,
        submit(service, LONG) as sock,
    ):
        busy(service)
        for pid in [*service.engine_pids(), service.process.pid]:
            os.kill(pid, signal.SIGTERM)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK")


def test_an_idle_connection_does_not_hold_up_the_stop(artifacts_dir):
    with running_service(artifacts_dir) as service:
        engines = service.engine_pids()
        with socket.create_connection(("127.0.0.1", service.port)) as idle:
            idle.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            assert idle.recv(65536).startswith(b"HTTP/1.1 200 OK")
            assert service.terminate() == 0
        wait_for(lambda: not any(is_running(pid) for pid in engines))


def test_while_loading_it_is_alive_but_not_ready_and_requests_wait(artifacts_dir):
    with running_service(artifacts_dir, wait=False) as service:
        health = wait_for(lambda: _answer_or_none(service, "/health"))
        ready = service.get("/readyz")
        assert health.status == 200
        # It loads within moments; whichever comes first, the request below must be answered.
        assert ready.status == 200 or ready.json["status"] == "loading"
        assert service.transcribe("fr-01.wav").json["text"] == EXACT["fr-01.wav"]["small"]


def _answer_or_none(service: Service, path: str):
    try:
        return service.get(path)
    except OSError:
        return None


class Systemd:
    """Plays systemd's part with its real protocol: a listening socket as descriptor 3 and a datagram socket."""

    def __init__(self, folder: Path):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notices.bind(str(folder / "notify"))
        self.notices.settimeout(60)
        self._address = str(folder / "notify")
        self._log_file = folder / "log"

    def start(self, artifacts_dir: Path, **settings: str) -> Service:
        # LISTEN_PID is the service's own process id, so a process that knows it becomes the service.
        script = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid()); "
            "os.execv(sys.executable, [sys.executable, '-m', 'whisper_xeon'])"
        )
        variables = {"WHISPER_ARTIFACTS_DIR": str(artifacts_dir), "NOTIFY_SOCKET": self._address, "LISTEN_FDS": "1"}
        descriptor = self.listener.fileno()
        with self._log_file.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", script, str(descriptor)],
                env=environment(**{**variables, **settings}),
                pass_fds=(descriptor,),
                stdout=log,
                stderr=log,
            )
        return Service(process, self.listener.getsockname()[1], self._log_file)

    def wait_for_notice(self, assignment: str) -> None:
        while assignment not in self.notices.recv(4096).decode().splitlines():
            pass

    def close(self) -> None:
        self.listener.close()
        self.notices.close()


@pytest.fixture
def systemd(tmp_path):
    played = Systemd(tmp_path)
    yield played
    played.close()


def test_a_socket_from_systemd_is_served_and_readiness_told_when_the_model_is_loaded(artifacts_dir, systemd):
    service = systemd.start(artifacts_dir)
    try:
        systemd.wait_for_notice("READY=1")
        assert service.get("/readyz").status == 200
        assert service.terminate() == 0
        systemd.wait_for_notice("STOPPING=1")
    finally:
        end(service.process)


def test_a_request_between_two_services_waits_in_the_socket(artifacts_dir, systemd):
    first = systemd.start(artifacts_dir)
    try:
        systemd.wait_for_notice("READY=1")
        assert first.terminate() == 0
    finally:
        end(first.process)
    with submit(first, RECORDINGS / "fr-01.wav") as waiting:
        second = systemd.start(artifacts_dir)
        try:
            assert EXACT["fr-01.wav"]["small"].encode() in waiting.recv(65536)
        finally:
            end(second.process)


def test_the_watchdog_is_fed(artifacts_dir, systemd):
    service = systemd.start(artifacts_dir, WATCHDOG_USEC="400000")
    try:
        for _ in range(3):
            systemd.wait_for_notice("WATCHDOG=1")
    finally:
        end(service.process)


@contextlib.contextmanager
def ticking() -> Iterator[tuple[Server, list[None]]]:
    """A server in this process, not running yet, and the list that its loop's signs of life make longer."""
    ticks: list[None] = []
    server = Server(lambda request: Response(200, b"served"), ("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=(lambda: ticks.append(None), 0.01))
    server.start = thread.start
    try:
        yield server, ticks
    finally:
        server.stop()
        thread.join()
        assert server.drain(10)


def test_an_accept_loop_that_hangs_gives_no_sign_of_life():
    with ticking() as (server, ticks), socket.create_connection(server.server_address) as sock:
        taking = threading.Event()
        go_on = threading.Event()

        def take(request: socket.socket, caller: Caller) -> bool:
            taking.set()
            return go_on.wait(60) and ConnectionSlots.take(server.slots, request, caller)

        server.slots.take = take
        server.start()
        assert taking.wait(60)
        before = len(ticks)
        hung = not go_on.wait(0.5)  # many times the interval of its signs
        assert (hung, len(ticks)) == (True, before)
        go_on.set()
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK")
        wait_for(lambda: len(ticks) > before)


def test_a_loop_without_files_tells_who_waits_and_gives_no_sign_of_life():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ticking() as (server, ticks), contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(socket.create_connection(server.server_address, timeout=10)) for _ in range(3)]
        last = stack.enter_context(socket.create_connection(server.server_address, timeout=10))
        failures = []

        def get_request():
            try:
                return Server.get_request(server)
            except OSError as error:
                failures.append((error.errno, len(ticks)))
                raise

        server.get_request = get_request
        lowest_free = os.dup(0)
        os.close(lowest_free)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
            server.start()
            for sock in waiting:
                sock.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda sock=sock: sock.recv(65536), b""))
                assert answer.startswith(b"HTTP/1.1 503 ")
                assert b"\r\nRetry-After: 1\r\n" in answer
            wait_for(lambda: failures[:3] == [(errno.EMFILE, 0)] * 3)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        last.shutdown(socket.SHUT_WR)
        wait_for(lambda: ticks)


def test_one_that_goes_on_sending_does_not_keep_the_others_from_being_told_that_there_are_no_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    told = threading.Event()
    with ticking() as (server, _), contextlib.ExitStack() as stack:
        first, second = (
            stack.enter_context(socket.create_connection(server.server_address, timeout=10)) for _ in range(2)
        )

        def go_on_sending() -> None:
            with contextlib.suppress(ConnectionError):
                while not told.wait(0.05):
                    first.sendall(b"a")

        sending = stack.enter_context(ThreadPoolExecutor(1)).submit(go_on_sending)
        lowest_free = os.dup(0)
        os.close(lowest_free)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
            server.start()
            answer = second.recv(65536)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            told.set()
        sending.result()
        assert answer.startswith(b"HTTP/1.1 503 ")


def test_a_supervisor_that_hangs_ends_the_signs_of_life(small_package, monkeypatch):
    monkeypatch.setattr("whisper_xeon.engine.supervisor._SUPERVISED_S", 0.5)
    hanging, go_on = threading.Event(), threading.Event()

    def log(*_: object, **__: object) -> None:
        hanging.set()
        go_on.wait(60)

    pool = EnginePool(small_package, engines=1, threads=1, queue=1, log=log)
    pool.start()
    try:
        assert hanging.wait(60)  # in the line about the loaded model
        wait_for(lambda: not pool.supervised)
        go_on.set()
        wait_for(lambda: pool.supervised)
        assert pool.wait_ready(60)
    finally:
        go_on.set()
        pool.stop(grace=0)


@pytest.mark.parametrize("supervised", [True, False])
def test_the_watchdog_is_fed_only_while_the_engines_are_supervised(tmp_path, supervised):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(tmp_path / "notify"))
        notices.setblocking(False)
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"})
        assert notifier.watchdog_interval == 15
        _sign_of_life(None, SimpleNamespace(state="ready", supervised=supervised), notifier)()
        if supervised:
            assert notices.recv(64) == b"WATCHDOG=1"
        else:
            with pytest.raises(BlockingIOError):
                notices.recv(64)


def test_no_process_leaves_a_core_dump(service):
    for pid in (service.process.pid, *service.engine_pids()):
        limits = Path(f"/proc/{pid}/limits").read_text(encoding="ascii").splitlines()
        assert [line.split()[4:6] for line in limits if line.startswith("Max core file size")] == [["0", "0"]]


def test_several_sockets_from_systemd_are_refused_in_one_line_with_status_1(artifacts_dir, systemd):
    service = systemd.start(artifacts_dir, LISTEN_FDS="2")
    assert service.process.wait(30) == 1
    assert "only one ListenStream= can be served" in service.log_text


def test_sockets_meant_for_another_process_are_left_alone(artifacts_dir):
    with running_service(artifacts_dir, LISTEN_PID="1", LISTEN_FDS="1") as service:
        assert service.get("/readyz").status == 200


def test_a_package_that_cannot_load_ends_the_start_with_one_line_and_status_1(no_package):
    with running_service(no_package, wait=False) as service:
        assert service.process.wait(30) == 1
        complaints = [line for line in service.log_text.splitlines() if not line.startswith("{")]
        assert len(complaints) == 1
        assert complaints[0].startswith("whisper-xeon: ")
        assert "libwhisper.so.1" in complaints[0]


@pytest.mark.parametrize("arguments", [(), ("--self-test",)])
def test_a_missing_package_is_said_in_one_line_with_status_1(tmp_path, arguments):
    result = run_cli(*arguments, WHISPER_ARTIFACTS_DIR=str(tmp_path), WHISPER_PORT=str(free_port()))
    assert result.returncode == 1
    (complaint,) = [line for line in result.stderr.splitlines() if not line.startswith("{")]
    assert str(tmp_path / "whisper_small_xeon") in complaint
    assert complaint.endswith(f"(WHISPER_ARTIFACTS_DIR is {tmp_path})")


def test_a_taken_port_is_said_in_one_line_with_status_1(artifacts_dir):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run_cli(WHISPER_ARTIFACTS_DIR=str(artifacts_dir), WHISPER_PORT=str(port))
    assert result.returncode == 1
    assert result.stderr == (
        f"whisper-xeon: cannot listen on 127.0.0.1 port {port}: Address already in use; "
        "stop the program that listens there, or set WHISPER_HOST and WHISPER_PORT\n"
    )


@pytest.mark.parametrize("model", ["small", "medium"])
def test_the_self_test_transcribes_its_clip_and_prints_one_line_of_json(artifacts_dir, adapter, model):
    settings = {"WHISPER_ARTIFACTS_DIR": str(artifacts_dir), "WHISPER_MODEL_SIZE": model, "WHISPER_ADAPTER": adapter}
    result = run_cli("--self-test", **settings)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report.keys() == {"ok", "model", "release_id", "text", "expected", "load_s", "compute_s"}
    assert (report["ok"], report["model"]) == (True, model)


def test_the_medium_model_is_served_when_it_is_chosen(artifacts_dir, medium_package):
    with running_service(artifacts_dir, WHISPER_MODEL_SIZE="medium") as service:
        answer = service.transcribe("en-00.wav", ("model", "medium"))
        assert answer.json["text"] == EXACT["en-00.wav"]["medium"]
        assert answer.headers["x-whisper-release"] == medium_package.release_id


def renamed(folder, model):
    """Give a copy of a package another model's name, as its builder could have done."""
    directory = package_directory(model)

    def rename(manifest):
        manifest["package"] = directory
        manifest["model"].update(name=model, dimensions=SMALL)

    rewrite(folder, rename)
    folder.rename(folder.with_name(directory))


def test_a_model_has_the_names_of_openais_tool_in_any_case(package_copy):
    renamed(package_copy, "large-v3-turbo")
    with running_service(package_copy.parent, WHISPER_MODEL_SIZE="TURBO") as service:
        assert service.get("/version").json["model"] == "large-v3-turbo"
        for name in ("turbo", "Large-V3-Turbo", "whisper-1"):
            assert service.transcribe("en-00.wav", ("model", name)).json["text"] == EXACT["en-00.wav"]["text"]


def test_a_model_of_ones_own_is_served_by_its_name(package_copy):
    renamed(package_copy, "support-calls-de")
    with running_service(package_copy.parent, WHISPER_MODEL_SIZE="Support-Calls-DE") as service:
        answer = service.transcribe("en-00.wav", ("model", "support-calls-de"), path="/transcribe")
        assert (answer.json["model"], answer.json["text"]) == ("support-calls-de", EXACT["en-00.wav"]["text"])


def test_a_start_without_the_package_says_which_ones_are_there(artifacts_dir):
    result = run_cli(WHISPER_ARTIFACTS_DIR=str(artifacts_dir), WHISPER_MODEL_SIZE="smal")
    assert result.returncode == 1
    there = ", ".join(packaged_models(artifacts_dir))
    expected = f"whisper_smal_xeon does not exist; the packages there are of {there} (did you mean small?)"
    assert expected in result.stderr

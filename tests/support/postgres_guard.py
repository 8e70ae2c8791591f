"""Own one PostgreSQL server process on behalf of another process, and outlive that process just long enough to end it.

Run as a script. Standard input is the leash: each line names a way to stop the server, and end of file means that the
owner is gone, even by SIGKILL. The server is then stopped at once and its directory removed, so that nothing stays
behind. The exit status is the server's.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading

_STOP_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


def _main(directory: str, uid: str, gid: str, argv: list[str]) -> int:
    # An empty uid means the caller's own. The server starts in a directory that its account may enter.
    user, group, extra = (int(uid), int(gid), ()) if uid else (None, None, None)
    # What a shell starts in the background is told to ignore it, and so would the server.
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, cwd=directory, user=user, group=group, extra_groups=extra)
    orphaned = threading.Event()

    def obey() -> None:
        # Unbuffered: a thread that waits inside a buffered reader would abort the interpreter's end.
        while words := os.read(0, 1024).decode().split():
            for word in words:
                server.send_signal(_STOP_SIGNALS[word])
        orphaned.set()
        server.send_signal(signal.SIGQUIT)

    threading.Thread(target=obey, daemon=True).start()
    status = server.wait()
    if orphaned.is_set():
        shutil.rmtree(directory, ignore_errors=True)
    return abs(status)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))

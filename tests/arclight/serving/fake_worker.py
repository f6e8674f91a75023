"""A worker without a model: each input comes back in upper case; some inputs make it die, hang or print."""

import json
import os
import sys
import time

from arclight.serving.frames import pack, read_frame

settings = json.loads(sys.argv[1])
if settings["run"].endswith("missing"):
    sys.stdout.buffer.write(pack({"error": f"{settings['run']} is not a run"}))
    sys.exit()
if settings["run"].endswith("crashing"):
    os._exit(3)
kind = "images" if settings["run"].endswith("images") else "text"
sys.stdout.buffer.write(pack({"kind": kind, "labels": ["A"], "run": settings["run"], "device": "cpu", "pid": os.getpid()}))
sys.stdout.buffer.flush()
while (frame := read_frame(sys.stdin.buffer)) is not None:
    header, payloads = frame
    texts = [payload.decode() for payload in payloads]
    if any("die" in text for text in texts):
        os._exit(1)
    if any("hang" in text for text in texts):
        time.sleep(60)
    time.sleep(0.2 * any("slow" in text for text in texts))
    records = [
        [{"source": name, "error": "is bad"} if "bad" in text else {"source": name, "text": text.upper(), "batch": len(texts)}]
        for name, text in zip(header["names"], texts, strict=True)
    ]
    sys.stdout.buffer.write(pack({"records": records}))
    sys.stdout.buffer.flush()

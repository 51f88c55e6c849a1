"""Runs in the triton environment: one gRPC stream that shows in which order Triton serves.

    python stream_client.py GRPC_ADDRESS METRICS_URL

All requests go to the ensemble. Two fill the slots of the generating model and a third waits for
one of them inside it. Of the next two, both in that model's queue, the second has the higher
priority. Prints the ids in the
order in which they ended, or ``never queued`` when both were not seen in the queue together.
"""

import queue
import sys
import urllib.request

import numpy as np
import tritonclient.grpc as grpc

GAUGE = 'nv_inference_pending_request_count{model="chat_generate",version="1"} '


def waiting(url):
    with urllib.request.urlopen(url, timeout=30) as response:
        lines = response.read().decode().splitlines()
    return int(next(line for line in lines if line.startswith(GAUGE)).removeprefix(GAUGE))


def ask(client, name, tokens, priority):
    text = grpc.InferInput("text_input", [1], "BYTES")
    text.set_data_from_numpy(np.array([b"Hello"], np.object_))
    options = {"max_tokens": tokens, "ignore_eos": True}
    client.async_stream_infer(
        "chat", [text], request_id=name, priority=priority, parameters=options
    )


def one_round(address, metrics):
    answers = queue.Queue()
    ended = []
    seen = False
    with grpc.InferenceServerClient(address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for name, tokens, priority in (
            *(("first", 2000, 2), ("second", 2000, 2), ("third", 200, 2)),
            *(("low", 200, 3), ("high", 200, 1)),
        ):
            ask(client, name, tokens, priority)
        while len(ended) < 5:
            try:
                result, error = answers.get(timeout=0.02)
            except queue.Empty:
                # Before any of the first two ended, nothing can have left the queue.
                seen = seen or (not ended and waiting(metrics) == 2 and answers.empty())
                continue
            if error is not None:
                raise SystemExit(str(error))
            assert len(result.as_numpy("text_output")[0]) > 100
            ended.append(result.get_response().id)
    return ended if seen else None


def main():
    for _ in range(5):
        ended = one_round(*sys.argv[1:])
        if ended:
            print(*ended)
            return
    print("never queued")


main()

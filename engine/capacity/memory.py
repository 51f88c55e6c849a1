"""What of a GPU is left for KV: vLLM's own sum, with its measured parts estimated.

vLLM takes ``gpu_memory_utilization`` of the GPU and subtracts the weights, the peak of a
profiling run with the largest batch, what is not PyTorch's, and the CUDA graphs. The last
three are only known once it runs. The estimates here reproduce the phi-2 log of vLLM 0.5.4 on
an L4 (2,881 blocks of 16 tokens; 0.57 GiB that are neither weights nor KV) within 3 %.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.capacity.architecture import Architecture
from engine.capacity.gpus import GIB, Gpu
from engine.capacity.kv import BLOCK, KvLayout, layout
from engine.capacity.model import Model

UTILIZATION = 0.92  # vLLM's default since 0.30
# CUDA's context, cuBLAS's workspace and allocator waste: what the phi-2 log leaves over.
CONTEXT = int(0.33 * GIB)
# NCCL's buffers and vLLM's all-reduce workspace per GPU. Assumed.
COLLECTIVES = int(0.5 * GIB)
# Captured graphs. vLLM profiles them; 0.3 to 1 GiB is common. Assumed; 0 with ENFORCE_EAGER.
CUDA_GRAPHS = int(0.5 * GIB)
# float32 logits, their probabilities and the 16-bit original of every sequence.
_SAMPLER_BYTES = 4 + 4 + 2


@dataclass(frozen=True, slots=True)
class Serving:
    """The settings of one replica.

    Attributes:
        quantization: none, fp8, int8 or awq; a quantised checkpoint's own for auto.
        batched_tokens: MAX_NUM_BATCHED_TOKENS.
    """

    quantization: str = "auto"
    kv_dtype: str = "auto"
    tensor_parallel: int = 1
    utilization: float = UTILIZATION
    max_num_seqs: int = 256
    batched_tokens: int = 2048
    cuda_graphs: int = CUDA_GRAPHS
    block: int = BLOCK


@dataclass(frozen=True, slots=True)
class Budget:
    """One GPU's memory in bytes; ``blocks`` may be 0, and then nothing fits."""

    usable: int
    weights: int
    activations: int
    context: int
    cuda_graphs: int
    layout: KvLayout

    @property
    def overhead(self) -> int:
        return self.activations + self.context + self.cuda_graphs

    @property
    def kv(self) -> int:
        return self.usable - self.weights - self.overhead

    @property
    def blocks(self) -> int:
        return max(0, self.kv // self.layout.block_bytes)

    def sequences(self, tokens: int) -> int:
        """Sequences of that length that fit at once."""
        return self.blocks // self.layout.blocks(tokens)

    @property
    def longest(self) -> int:
        """Tokens of the longest single sequence that fits; 0 for none."""
        kv = self.layout
        low, high = 0, (self.blocks + 1) * kv.block_size
        if not kv.full_groups:
            return 10**9 if self.blocks >= kv.blocks(10**9) else 0
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if kv.blocks(middle) <= self.blocks else (low, middle - 1)
        return low


def activation_bytes(
    architecture: Architecture, batched_tokens: int, sequences: int, tensor_parallel: int = 1
) -> int:
    """Peak of the profiling run: one layer's MLP for all tokens, and the sampler's logits.

    Residual, its norm and the layer's output, gate and up projection; then logits [sequences,
    vocabulary], of which every GPU gathers all.
    """
    widest = architecture.intermediate
    if experts := architecture.config.get("moe_intermediate_size"):
        chosen = int(architecture.config.get("num_experts_per_tok") or 1)
        widest = max(widest, int(experts) * chosen)
    mlp = batched_tokens * (3 * architecture.hidden + 2 * widest // tensor_parallel)
    return mlp * architecture.dtype_bytes + sequences * architecture.vocab * _SAMPLER_BYTES


def budget(model: Model, gpu: Gpu, serving: Serving) -> Budget:
    """The memory of each GPU. Raises CapacityError where the heads cannot be split so."""
    parallel = serving.tensor_parallel
    return Budget(
        usable=int(gpu.memory * serving.utilization),
        weights=model.weights.served_bytes(model.method(serving.quantization), parallel),
        activations=activation_bytes(
            model.architecture, serving.batched_tokens, serving.max_num_seqs, parallel
        ),
        context=CONTEXT + (COLLECTIVES if parallel > 1 else 0),
        cuda_graphs=serving.cuda_graphs,
        layout=layout(model.architecture, serving.kv_dtype, parallel, serving.block),
    )


def gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB"

// A graph of the device that a thread is making of what it would enqueue on a stream: node behind node, by the calls that add nodes. The driver's own capture
// of a stream is not used, in no mode: while it lasts, whoever waits for the whole device, in any thread and of any library (torch.cuda.synchronize()), is
// refused, and the capture is lost besides.
#pragma once

#include <cuda_runtime.h>

#include "stream.hpp"

namespace warpmem::cuda {

struct GraphInMaking {
  cudaGraph_t graph = nullptr;  // null: none
  cudaGraphNode_t last = nullptr;
  Stream stream = nullptr;
};

// The calling thread's.
inline thread_local GraphInMaking graph_in_making;

// Whether what is enqueued on the stream becomes a node instead.
inline bool makes_graph(Stream stream) noexcept { return graph_in_making.graph != nullptr && graph_in_making.stream == stream; }

// Adds a node behind all others: add(node, graph, nodes before it, how many of these).
template <typename Add>
cudaError_t add_node(const Add& add) noexcept {
  GraphInMaking& made = graph_in_making;
  cudaGraphNode_t node = nullptr;
  const cudaError_t status = add(&node, made.graph, &made.last, made.last == nullptr ? size_t{0} : size_t{1});
  if (status == cudaSuccess) made.last = node;
  return status;
}

inline cudaError_t enqueue_copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, Stream stream) noexcept {
  if (!makes_graph(stream)) return cudaMemcpyAsync(to, from, bytes, kind, stream);
  return add_node([&](cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* before, size_t n) {
    return cudaGraphAddMemcpyNode1D(node, graph, before, n, to, from, bytes, kind);
  });
}

inline cudaError_t enqueue_fill(void* to, int value, size_t bytes, Stream stream) noexcept {
  if (!makes_graph(stream)) return cudaMemsetAsync(to, value, bytes, stream);
  cudaMemsetParams fill{};
  fill.dst = to;
  fill.elementSize = 1;
  fill.width = bytes;
  fill.height = 1;
  fill.value = static_cast<unsigned>(value) & 0xffu;
  return add_node([&](cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* before, size_t n) {
    return cudaGraphAddMemsetNode(node, graph, before, n, &fill);
  });
}

}  // namespace warpmem::cuda

// A device for the calling thread, for a while, and nothing else changed: its primary context is pushed on the thread's stack and popped. cudaSetDevice cannot
// go back to no device at all, and to go back to device 0 makes a context there, hundreds of megabytes of a device that nobody asked for.
//
// While another thread captures a graph in the strictest mode (torch.cuda.graph() does by default), a thread in the mode that all begin in may not as much as
// ask for memory: the call fails, and the other's capture with it. Nothing that is done here could be meant for another's graph, so a thread is in the mode
// that allows it (relaxed) while it has entered.
//
// Contexts stay until the process ends, as those of the CUDA runtime itself do. No CUDA header is needed to include this. Threads: any.
#pragma once

namespace warpmem::cuda {

// What went wrong: a call of the driver and its CUresult. No step: nothing.
struct EnterFailure {
  const char* step = nullptr;
  int code = 0;
};

// Each that succeeds is followed by a leave_device() of the same thread; they nest.
EnterFailure enter_device(int device) noexcept;
void leave_device() noexcept;

}  // namespace warpmem::cuda

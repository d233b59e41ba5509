// csrc/cuda/runtime_cuda.cu on CUDA that is not there (fake_cuda/): whose context a thread has before, during and after, and what is called when it has none.
#include <thread>
#include <utility>

#include "../../csrc/cuda/current_device.cu"
#include "../../csrc/cuda/runtime_cuda.cu"
#include "check.hpp"

namespace warpmem::cuda {

int device_count() noexcept { return 4; }
DeviceLimits device_limits(int) { return {}; }

}  // namespace warpmem::cuda

namespace {

using namespace warpmem::cuda;

fake_cuda::State& state() { return fake_cuda::state(); }

// In a thread of its own, which has no context yet.
template <typename Body>
void in_a_thread(const Body& body) {
  std::thread(body).join();
}

TEST(a_thread_without_a_context_has_none_afterwards) {
  in_a_thread([] {
    state() = {};
    const auto runtime = make_runtime(2);
    {
      const Entered entered(*runtime);
      CHECK_EQ(fake_cuda::current(), 2);
      void* memory = nullptr;
      CHECK(runtime->allocate(&memory, 8) == Status::kOk);
      CHECK_EQ(state().memory[memory], 2);
      int64_t free = 0, total = 0;
      CHECK(runtime->memory(&free, &total) == Status::kOk);
      runtime->release(memory);
    }
    CHECK(fake_cuda::stack().empty());
    CHECK_EQ(state().contexts.count(0), size_t{0});  // nobody asked for device 0
  });
}

TEST(a_threads_own_context_comes_back) {
  in_a_thread([] {
    cudaSetDevice(3);
    const auto own = fake_cuda::stack();
    const auto first = make_runtime(1), second = make_runtime(2);
    {
      const Entered outer(*first);
      {
        const Entered inner(*second);
        CHECK_EQ(fake_cuda::current(), 2);
        CHECK(first->fill(nullptr, 0, 0, nullptr) == Status::kFailed);  // its device is not the thread's now
        const Entered again(*second);
        CHECK_EQ(fake_cuda::current(), 2);
      }
      CHECK_EQ(fake_cuda::current(), 1);
      CHECK(first->fill(nullptr, 0, 0, nullptr) == Status::kOk);
    }
    CHECK(fake_cuda::stack() == own);
  });
}

TEST(who_could_not_enter_touches_no_device) {
  for (const auto& [step, number] : {std::pair("cuCtxPushCurrent", 1), std::pair("cuDevicePrimaryCtxRetain", 3)}) {
    in_a_thread([step = step, number = number] {
      state().contexts.clear();
      const auto runtime = make_runtime(number);
      state().fails = step;
      {
        const Entered entered(*runtime);
        state().fails.clear();
        void* memory = nullptr;
        Stream stream = nullptr;
        Event event = nullptr;
        int device = 0;
        CHECK(runtime->allocate(&memory, 8) == Status::kFailed);
        CHECK(runtime->allocate_pinned(&memory, 8) == Status::kFailed);
        CHECK(runtime->create_stream(&stream) == Status::kFailed);
        CHECK(runtime->create_event(&event, true) == Status::kFailed);
        CHECK(runtime->synchronize(stream) == Status::kFailed);
        CHECK(!runtime->owns(&memory, &device));
        runtime->release(memory);
        runtime->release_stream(stream);
        runtime->release_event(event);
      }
      CHECK(fake_cuda::stack().empty() && state().contexts.count(0) == 0);
      CHECK(runtime->error().find(step) == 0);
      const Entered entered(*runtime);
      CHECK(runtime->synchronize(Stream{}) == Status::kOk);
    });
  }
}

TEST(whose_an_address_is) {
  in_a_thread([] {
    const auto first = make_runtime(1), second = make_runtime(2);
    void* memory = nullptr;
    int device = 9;
    {
      const Entered entered(*first);
      CHECK(first->allocate(&memory, 8) == Status::kOk);
      CHECK(first->owns(memory, &device) && device == 1);
      CHECK(!first->owns(&device, &device) && device == -1);
    }
    const Entered entered(*second);
    CHECK(!second->owns(memory, &device) && device == 1);
    state().fails = "cudaPointerGetAttributes";
    CHECK(!second->owns(memory, &device) && device == -1);
    state().fails.clear();
    second->release(memory);
  });
}

TEST(out_of_memory_is_no_failure_of_the_device) {
  in_a_thread([] {
    const auto runtime = make_runtime(1);
    const Entered entered(*runtime);
    state().fails = "cudaMalloc";
    state().code = cudaErrorMemoryAllocation;
    void* memory = nullptr;
    CHECK(runtime->allocate(&memory, 8) == Status::kNoMemory);
    state().code = cudaErrorInvalidValue;
    CHECK(runtime->allocate(&memory, 8) == Status::kFailed);
    CHECK_EQ(runtime->error(), std::string("cudaMalloc: told to fail"));
    state().fails.clear();
  });
}

// torch.cuda.graph() in another thread: memory can be had, and the other's capture is not disturbed by it.
TEST(others_may_capture_in_the_strictest_mode) {
  in_a_thread([] {
    const auto runtime = make_runtime(1), other = make_runtime(2);
    state().captured = true;
    {
      const Entered entered(*runtime);
      void* memory = nullptr;
      CHECK(runtime->allocate(&memory, 8) == Status::kOk);
      runtime->release(memory);
      {
        const Entered inner(*other);
        CHECK(other->allocate_pinned(&memory, 8) == Status::kOk);
        other->release_pinned(memory);
      }
      CHECK(runtime->allocate(&memory, 8) == Status::kOk);
      runtime->release(memory);
    }
    CHECK(fake_cuda::mode() == CU_STREAM_CAPTURE_MODE_GLOBAL);  // it was the thread's, and is again
    fake_cuda::mode() = CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    {
      const Entered entered(*runtime);
    }
    CHECK(fake_cuda::mode() == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    state().captured = false;
  });
}

// Eight bytes there, a fill of two of them, and back.
struct Work {
  const std::unique_ptr<Runtime> runtime = make_runtime(1);
  const Entered entered{*runtime};
  const Stream stream = reinterpret_cast<Stream>(this);
  char in[8] = "abcdefg", there[8] = "", out[8] = "";

  Status enqueue() {
    for (const Status status : {runtime->copy_in(there, in, 8, stream), runtime->fill(there + 1, 'x' + 256, 2, stream),
                                runtime->copy_within(there + 4, there, 2, stream), runtime->copy_out(out, there, 8, stream)}) {
      if (status != Status::kOk) return status;
    }
    return Status::kOk;
  }
};

TEST(a_graph_is_made_without_a_capture) {
  in_a_thread([] {
    Work work;
    Graph graph = nullptr;
    CHECK(work.runtime->begin_capture(work.stream) == Status::kOk);
    CHECK(work.enqueue() == Status::kOk);
    CHECK_EQ(work.out[0], '\0');
    in_a_thread([&] { CHECK_EQ(cudaDeviceSynchronize(), cudaSuccess); });  // who waits for the whole device may
    char beside[8] = "";
    CHECK(work.runtime->copy_out(beside, work.in, 8, nullptr) == Status::kOk);  // on another stream: made at once
    CHECK_EQ(std::string(beside), std::string("abcdefg"));
    CHECK(work.runtime->begin_capture(work.stream) == Status::kFailed);
    CHECK(work.runtime->end_capture(work.stream, &graph) == Status::kOk);
    CHECK_EQ(work.out[0], '\0');
    for (const char first : {'a', 'A'}) {
      work.in[0] = first;
      CHECK(work.runtime->replay(graph, work.stream) == Status::kOk);
      CHECK_EQ(std::string(work.out), first + std::string("xxd") + first + std::string("xg"));
    }
    work.runtime->release_graph(graph);
    CHECK(work.enqueue() == Status::kOk);  // at once again
    CHECK_EQ(state().graphs, 0);
  });
}

TEST(a_graph_that_cannot_be_made_leaves_nothing) {
  for (const char* step : {"cudaGraphCreate", "cudaGraphAddMemcpyNode1D", "cudaGraphAddMemsetNode", "cudaGraphInstantiate"}) {
    in_a_thread([step] {
      Work work;
      Graph graph = nullptr;
      state().fails = step;
      const bool begun = work.runtime->begin_capture(work.stream) == Status::kOk;
      CHECK_EQ(begun, std::string(step) != "cudaGraphCreate");
      const bool enqueued = begun && work.enqueue() == Status::kOk;
      const bool ended = work.runtime->end_capture(work.stream, &graph) == Status::kOk;
      CHECK(!(enqueued && ended));
      CHECK_EQ(ended, graph != nullptr);
      if (ended) work.runtime->release_graph(graph);
      state().fails.clear();
      CHECK_EQ(state().graphs, 0);
      CHECK(work.enqueue() == Status::kOk);
      CHECK_EQ(work.out[0], 'a');
    });
  }
}

}  // namespace

int main(int argc, char** argv) { return check::run_tests(argc, argv); }

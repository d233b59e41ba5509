#include "kmeans_train.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "../core/kmeans_plan.hpp"
#include "kmeans.hpp"
#include "staging.hpp"

namespace warpmem::cuda {

namespace {

void require(Runtime& runtime, Status status) {
  if (status != Status::kOk) throw std::runtime_error(runtime.error());
}

class OwnStream {
 public:
  explicit OwnStream(Runtime& runtime) : runtime_(runtime) { require(runtime, runtime.create_stream(&stream_)); }
  ~OwnStream() { runtime_.release_stream(stream_); }
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;

  Stream get() const { return stream_; }

 private:
  Runtime& runtime_;
  Stream stream_ = nullptr;
};

// Device memory for a plan, cut into arrays one after another, and zeroed before it is given back.
class Block {
 public:
  // Where there is none for rows in halves as well, the plan becomes one that does without.
  Block(Runtime& runtime, Stream stream, TrainPlan& plan, const DeviceLimits& limits) : runtime_(runtime), stream_(stream) {
    void* memory = nullptr;
    Status status = runtime.allocate(&memory, plan.bytes);
    if (status == Status::kNoMemory && plan.rounded) {
      plan = without_halves(plan, limits);
      status = runtime.allocate(&memory, plan.bytes);
    }
    bytes_ = plan.bytes;
    if (status == Status::kNoMemory)
      throw std::runtime_error("it has no " + std::to_string(bytes_) + " bytes: " + runtime.error());
    require(runtime, status);
    memory_ = static_cast<unsigned char*>(memory);
  }
  ~Block() {
    if (runtime_.fill(memory_, 0, bytes_, stream_) == Status::kOk) static_cast<void>(runtime_.synchronize(stream_));
    runtime_.release(memory_);
  }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  template <typename T>
  T* take(int64_t count) {
    T* const out = reinterpret_cast<T*>(memory_ + taken_);
    taken_ += align_train(count * static_cast<int64_t>(sizeof(T)));
    return out;
  }

 private:
  Runtime& runtime_;
  const Stream stream_;
  int64_t bytes_ = 0;
  unsigned char* memory_ = nullptr;
  int64_t taken_ = 0;
};

// Host memory for what comes from the device, which may arrive until the device is done with the call. Zeroed as well: centroids are told by it.
class Landing {
 public:
  Landing(Runtime& runtime, int64_t bytes) : runtime_(runtime), bytes_(bytes) {
    void* memory = nullptr;
    if (runtime.allocate_pinned(&memory, bytes) == Status::kOk) {
      memory_ = pinned_ = static_cast<unsigned char*>(memory);
    } else {
      plain_.reset(new unsigned char[static_cast<size_t>(bytes)]);
      memory_ = plain_.get();
    }
  }
  ~Landing() {
    std::memset(memory_, 0, static_cast<size_t>(bytes_));
    if (pinned_ != nullptr) runtime_.release_pinned(pinned_);
  }
  Landing(const Landing&) = delete;
  Landing& operator=(const Landing&) = delete;

  unsigned char* data() const { return memory_; }
  int64_t bytes() const { return bytes_; }

 private:
  Runtime& runtime_;
  const int64_t bytes_;
  std::unique_ptr<unsigned char[]> plain_;
  unsigned char* pinned_ = nullptr;
  unsigned char* memory_ = nullptr;
};

// The rows of a call on the host, or `dim` elements of each: row i is row chosen[i] of an array, or row i where none is chosen.
struct HostRows {
  const float* rows;
  int64_t dim;
  int64_t stride;
  const int64_t* chosen;

  const float* operator[](int64_t i) const { return rows + (chosen == nullptr ? i : chosen[i]) * stride; }
};

DeviceLimits limits_of(Runtime& runtime) {
  DeviceLimits limits;
  require(runtime, runtime.limits(&limits));
  return limits;
}

// The device at work for one call, which has entered it. Arrays are those of the plan; `rows_` holds the rows that were uploaded last.
class Session {
 public:
  Session(Runtime& runtime, const TrainPlan& plan, const DeviceLimits& limits, bool spherical, const TrainSettings& settings)
      : runtime_(runtime),
        plan_(plan),
        limits_(limits),
        spherical_(spherical),
        settings_(settings),
        began_(std::chrono::steady_clock::now()),
        stream_(runtime),
        landing_(runtime, std::min(settings.staging_bytes, std::max(8 * plan.rows, plan.k * row_bytes()))),
        block_(runtime, stream_.get(), plan_, limits),
        staging_(runtime, stream_.get(), std::max(row_bytes(), std::min(settings.staging_bytes, plan.rows * row_bytes()))),
        rows_(block_.take<float>(plan.rows * plan.dim)),
        centroids_(block_.take<float>(plan.k * plan.dim)),
        means_(plan.means ? block_.take<float>(plan.k * plan.dim) : nullptr),
        index_(block_.take<int32_t>(plan.rows)),
        values_(block_.take<double>(plan.rows)),
        rounded_(plan_.rounded ? RoundedRows(block_.take<unsigned char>(rounded_bytes(plan.rows, plan.dim)), plan.rows, plan.dim)
                               : RoundedRows()),
        workspace_(block_.take<unsigned char>(plan_.workspace_bytes)) {}

  void upload_rows(const HostRows& rows, int64_t begin, int64_t n) {
    const int64_t some = staging_.room() / row_bytes();
    n_rounded_ = 0;
    for (int64_t first = 0; first < n; first += some) {
      const int64_t last = std::min(n, first + some);
      unsigned char* const to = staged((last - first) * row_bytes());
      for (int64_t i = first; i < last; ++i)
        std::memcpy(to + (i - first) * row_bytes(), rows[begin + i], static_cast<size_t>(row_bytes()));
      require(runtime_, staging_.send(rows_ + first * plan_.dim, (last - first) * row_bytes()));
      pause();
    }
  }

  // Centroids first .. last - 1 of (k, dim).
  void upload_centroids(const float* centroids, int64_t first, int64_t last) {
    const int64_t some = staging_.room() / row_bytes();
    for (; first < last; first += some) {
      const int64_t bytes = std::min(some, last - first) * row_bytes();
      std::memcpy(staged(bytes), centroids + first * plan_.dim, static_cast<size_t>(bytes));
      require(runtime_, staging_.send(centroids_ + first * plan_.dim, bytes));
    }
  }

  void download_centroids(float* centroids) { download(centroids, centroids_, plan_.k * row_bytes()); }

  // Of the first n rows, the squared distance to one of them. The assignments are 0 then: the row is the one centroid.
  void distances(int64_t n, int64_t row, double* out) {
    require(runtime_, runtime_.fill(index_, 0, 4 * n, stream_.get()));
    values_to(n, rows_ + row * plan_.dim, false, out);
  }

  // Of the first n rows: assignments, and their values where these are wanted.
  void assign(int64_t n, int32_t* index, double* values) {
    if (plan_.rounded && n_rounded_ < n) {
      round_rows(rows_, plan_.dim, n, plan_.dim, rounded_, stream_.get());
      n_rounded_ = n;
    }
    for (int64_t first = 0; first < n; first += plan_.piece_rows) {
      const int64_t some = std::min(plan_.piece_rows, n - first);
      AssignArguments arguments;
      arguments.rows = rows_ + first * plan_.dim;
      arguments.row_stride = plan_.dim;
      arguments.centroids = centroids_;
      arguments.inner = spherical_;
      arguments.index = index_ + first;
      if (plan_.rounded) arguments.rounded = rounded_.from(first, plan_.dim);
      arguments.workspace = workspace_;
      nearest(plan_train_nearest(plan_, some, limits_), arguments, stream_.get());
      pause();
    }
    download(index, index_, 4 * n);
    if (values != nullptr) measure(n, values);
  }

  // The values of the assignments there are.
  void measure(int64_t n, double* out) { values_to(n, centroids_, spherical_, out); }

  void update(int64_t n) {
    UpdateArguments arguments;
    arguments.rows = rows_;
    arguments.index = index_;
    arguments.centroids = centroids_;
    arguments.means = means_;
    arguments.spherical = spherical_;
    arguments.workspace = workspace_;
    kmeans_update(plan_update(n, plan_.dim, plan_.k), arguments, stream_.get());
    pause();
  }

 private:
  int64_t row_bytes() const { return 4 * plan_.dim; }

  unsigned char* staged(int64_t bytes) {
    unsigned char* const memory = staging_.next(bytes);
    if (memory == nullptr) throw std::runtime_error(runtime_.error());
    return memory;
  }

  void values_to(int64_t n, const float* centroids, bool inner, double* out) {
    nearest_values(n, plan_.dim, ValuesArguments{rows_, plan_.dim, centroids, inner, index_, values_}, stream_.get());
    download(out, values_, 8 * n);
  }

  void download(void* to, const void* from, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += landing_.bytes()) {
      const int64_t some = std::min(landing_.bytes(), bytes - at);
      require(runtime_, runtime_.copy_out(landing_.data(), static_cast<const unsigned char*>(from) + at, some, stream_.get()));
      require(runtime_, runtime_.synchronize(stream_.get()));
      std::memcpy(static_cast<unsigned char*>(to) + at, landing_.data(), static_cast<size_t>(some));
    }
    pause();
  }

  // The device to others, when it is time for that.
  void pause() {
    if (!settings_.between) return;
    require(runtime_, runtime_.synchronize(stream_.get()));
    if (std::chrono::steady_clock::now() - began_ < settings_.unit) return;
    settings_.between();
    began_ = std::chrono::steady_clock::now();
  }

  Runtime& runtime_;
  TrainPlan plan_;  // the block's
  const DeviceLimits limits_;
  const bool spherical_;
  const TrainSettings& settings_;
  std::chrono::steady_clock::time_point began_;
  const OwnStream stream_;
  const Landing landing_;  // gone behind the block: then nothing comes any more
  Block block_;
  Staging staging_;
  float* const rows_;
  float* const centroids_;
  float* const means_;
  int32_t* const index_;
  double* const values_;
  const RoundedRows rounded_;
  int64_t n_rounded_ = 0;  // of the rows that were uploaded last
  unsigned char* const workspace_;
};

// The steps of core/kmeans_loop.hpp over the first n rows, which were uploaded. `centroids` is where starts are made on the host, and says nothing of the others.
class Training {
 public:
  Training(Session& session, const HostRows& rows, int64_t n, bool spherical, float* centroids)
      : session_(session), rows_(rows), n_(n), spherical_(spherical), centroids_(centroids) {}

  void place(int64_t c, int64_t row) {
    start_centroid(rows_[row], rows_.dim, spherical_, centroids_ + c * rows_.dim);
    placed_.push_back(c);
  }

  void lower(int64_t row, double* values) {
    distances_.resize(static_cast<size_t>(n_));
    session_.distances(n_, row, distances_.data());
    for (int64_t i = 0; i < n_; ++i) values[i] = std::min(values[i], distances_[static_cast<size_t>(i)]);
  }

  void assign(int32_t* index) {
    bring();
    session_.assign(n_, index, nullptr);
  }

  void measure(const int32_t* /*index*/, double* values) { session_.measure(n_, values); }

  void update(const int32_t* /*index*/, const int64_t* /*sizes*/) { session_.update(n_); }

  // What was placed since the last time, to the device: in runs of neighbours.
  void bring() {
    for (size_t i = 0; i < placed_.size();) {
      const int64_t first = placed_[i];
      int64_t last = first;
      for (; i < placed_.size() && placed_[i] == last; ++i) ++last;
      session_.upload_centroids(centroids_, first, last);
    }
    placed_.clear();
  }

 private:
  Session& session_;
  const HostRows rows_;
  const int64_t n_;
  const bool spherical_;
  float* const centroids_;
  std::vector<int64_t> placed_;  // ascending
  std::vector<double> distances_;
};

// Centroids of n rows, which are sent to the device, where the centroids stay. `centroids` is where starts are made on the host.
void train(Session& session, const HostRows& rows, int64_t n, const KmeansOptions& options, SplitMix64& random,
           float* centroids) {
  session.upload_rows(rows, 0, n);
  Training training(session, rows, n, options.spherical, centroids);
  KmeansLoop<Training>(training, n, options).run(random);
  training.bring();
}

// All rows to the centroids on the device, as many at a time as it has room for.
void assign_all(Session& session, int64_t at_a_time, const HostRows& rows, int64_t n, bool uploaded, int32_t* index,
                double* values) {
  for (int64_t first = 0; first < n; first += at_a_time) {
    const int64_t some = std::min(at_a_time, n - first);
    if (!uploaded) session.upload_rows(rows, first, some);
    session.assign(some, index + first, values == nullptr ? nullptr : values + first);
  }
}

}  // namespace

double kmeans(Runtime& runtime, const float* rows, int64_t n, int64_t dim, const KmeansOptions& options,
              const TrainSettings& settings, float* centroids, int32_t* index) {
  SplitMix64 random(options.seed);
  const std::vector<int64_t> chosen = draw_sample(random, n, options);
  const int64_t trained = chosen.empty() ? n : options.sample;
  const HostRows sample{rows, dim, dim, chosen.empty() ? nullptr : chosen.data()};
  std::vector<double> values(static_cast<size_t>(n));

  const Entered entered(runtime);
  const DeviceLimits limits = limits_of(runtime);
  const TrainPlan plan = plan_train(n, trained, dim, options.k, options.spherical, limits, settings.piece_rows);
  Session session(runtime, plan, limits, options.spherical, settings);
  train(session, sample, trained, options, random, centroids);
  assign_all(session, plan.rows, HostRows{rows, dim, dim, nullptr}, n, trained == n, index, values.data());
  session.download_centroids(centroids);
  return sum_in_order(values);
}

void kmeans_assign(Runtime& runtime, const float* rows, int64_t n, int64_t dim, const float* centroids, int64_t k, bool inner,
                   const TrainSettings& settings, int32_t* index, double* values) {
  if (n == 0) return;
  const Entered entered(runtime);
  const DeviceLimits limits = limits_of(runtime);
  const TrainPlan plan = plan_train(n, 0, dim, k, inner, limits, settings.piece_rows);
  Session session(runtime, plan, limits, inner, settings);
  session.upload_centroids(centroids, 0, k);
  assign_all(session, plan.rows, HostRows{rows, dim, dim, nullptr}, n, false, index, values);
}

void pq_train(Runtime& runtime, const PqShape& shape, const float* rows, int64_t n, uint64_t seed, int64_t iterations,
              const TrainSettings& settings, float* codebooks) {
  const Entered entered(runtime);
  const DeviceLimits limits = limits_of(runtime);
  const TrainPlan plan = plan_train(n, n, shape.dsub, shape.entries(), false, limits, settings.piece_rows);
  Session session(runtime, plan, limits, false, settings);
  for (int64_t s = 0; s < shape.pq_dim; ++s) {
    const KmeansOptions options = pq_options(shape.entries(), s, seed, iterations);
    const HostRows pieces{rows + s * shape.dsub, shape.dsub, shape.dim(), nullptr};
    float* const book = codebooks + s * shape.entries() * shape.dsub;
    SplitMix64 random(options.seed);
    train(session, pieces, n, options, random, book);
    session.download_centroids(book);
  }
}

}  // namespace warpmem::cuda

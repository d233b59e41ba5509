#include "scan_batch.hpp"

#include <algorithm>
#include <cstring>
#include <new>
#include <unordered_map>

namespace warpmem::cuda {

namespace {

template <typename T>
void put(unsigned char* to, const T* from, int64_t n) noexcept {
  if (n > 0) std::memcpy(to, from, static_cast<size_t>(n) * sizeof(T));
}

}  // namespace

Ranking plain_ranking(const Ranking& ranking) {
  Ranking out = ranking;
  if (out.w_recency == 0.0) {
    out.w_recency = 0.0;  // not -0
    out.half_life = 1.0;
    out.recency_column = 0;
    out.now = 0;
  }
  if (out.w_priority == 0.0) {
    out.w_priority = 0.0;
    out.priority_column = 0;
  }
  return out;
}

bool can_share(const ScanTicket& left, const ScanTicket& right) {
  const ScanCall& a = left.call;
  const ScanCall& b = right.call;
  return a.k == b.k && a.min_similarity == b.min_similarity && a.ranking.w_similarity == b.ranking.w_similarity &&
         a.ranking.w_recency == b.ranking.w_recency && a.ranking.w_priority == b.ranking.w_priority &&
         a.ranking.half_life == b.ranking.half_life && a.ranking.recency_column == b.ranking.recency_column &&
         a.ranking.priority_column == b.ranking.priority_column && a.ranking.now == b.ranking.now;
}

bool BatchSize::add(const ScanCall& call) noexcept {
  BatchSize sum{queries + call.n_queries, segments + call.segment_begin[call.n_lists], bytes};
  sum.bytes += call.n_terms * static_cast<int64_t>(sizeof(Term)) + call.n_values * static_cast<int64_t>(sizeof(int64_t));
  for (int64_t f = 0; f < call.n_filters; ++f) {
    sum.bytes +=
        static_cast<int64_t>(sizeof(DeviceFilter)) + call.filters[f].bitmap_words * static_cast<int64_t>(sizeof(uint64_t));
  }
  sum.bytes += call.n_queries * call.k * static_cast<int64_t>(sizeof(Candidate));
  const bool too_much = sum.queries > kBatchQueries || sum.segments > kBatchSegments || sum.bytes > kBatchBytes;
  if (queries > 0 && too_much) return false;
  *this = sum;
  return true;
}

ScanBatch::ScanBatch(std::vector<ScanTicket*> tickets, const PoolPort& pool, const DeviceLimits& limits)
    : tickets_(std::move(tickets)), pool_(pool), k_(tickets_[0]->call.k) {
  gather();
  DeviceScanShape shape;
  shape.dim = pool_.dim;
  shape.n_columns = pool_.n_columns;
  shape.storage = pool_.storage;
  shape.l2 = pool_.l2;
  shape.codes = pool_.screen || pool_.storage == Storage::kInt8;
  shape.queries = n_queries_;
  shape.k = k_;
  shape.ranking = tickets_[0]->call.ranking;
  plan_ = plan_device_scan(shape, lists_, segment_queries_.data(), limits);
  place();
}

void ScanBatch::gather() {
  struct Part {
    const ScanTicket* ticket;
    int64_t list;
    uint32_t first_query;
    int32_t first_filter;
  };
  std::unordered_map<const CachedList*, size_t> known;
  std::vector<std::vector<Part>> parts;  // by list
  for (const ScanTicket* ticket : tickets_) {
    const ScanCall& call = ticket->call;
    const auto first_filter = static_cast<int32_t>(filters_.size());
    for (int64_t f = 0; f < call.n_filters; ++f) {
      const Filter& filter = call.filters[f];
      DeviceFilter out;
      out.terms_begin = static_cast<int32_t>(n_terms_ + static_cast<int64_t>(filter.terms_begin));
      out.terms_end = static_cast<int32_t>(n_terms_ + static_cast<int64_t>(filter.terms_end));
      out.values_begin = n_values_ + static_cast<int64_t>(filter.values_begin);
      out.bitmap_words = filter.bitmap_words;
      if (filter.bitmap != nullptr) {
        out.bitmap = reinterpret_cast<const uint64_t*>(static_cast<uintptr_t>(n_words_ + 1));
        n_words_ += filter.bitmap_words;
      }
      filters_.push_back(out);
    }
    n_terms_ += call.n_terms;
    n_values_ += call.n_values;
    for (int64_t l = 0; l < call.n_lists; ++l) {
      const CachedList* const list = ticket->pins[static_cast<size_t>(l)].get();
      if (list == nullptr) continue;
      const auto found = known.emplace(list, parts.size());
      if (found.second) {
        parts.emplace_back();
        warpmem::DeviceList out;
        out.list_id = list->list_id;
        out.pages = list->n_pages();
        lists_.push_back(out);
        if (pages_ == nullptr || list->device_table() < pages_) pages_ = list->device_table();
      }
      parts[found.first->second].push_back(Part{ticket, l, static_cast<uint32_t>(n_queries_), first_filter});
    }
    n_queries_ += call.n_queries;
  }
  for (const auto& [list, at] : known) {
    lists_[at].first_page = (reinterpret_cast<intptr_t>(list->device_table()) - reinterpret_cast<intptr_t>(pages_)) / kTableEntry;
  }
  for (size_t at = 0; at < parts.size(); ++at) {
    lists_[at].first_segment = static_cast<int64_t>(segments_.size());
    for (const Part& part : parts[at]) {
      const ScanCall& call = part.ticket->call;
      for (int64_t s = call.segment_begin[part.list]; s < call.segment_begin[part.list + 1]; ++s) {
        const Filter& filter = call.filters[call.segment_filter[s]];
        const bool every = filter.terms_begin == filter.terms_end && filter.bitmap == nullptr;
        segments_.push_back(DeviceSegment{part.first_query + call.segment_query[s], call.segment_group[s],
                                          every ? -1 : part.first_filter + static_cast<int32_t>(call.segment_filter[s])});
        segment_queries_.push_back(segments_.back().query);
      }
    }
    lists_[at].segments = static_cast<int64_t>(segments_.size()) - lists_[at].first_segment;
  }
}

void ScanBatch::place() {
  int64_t at = 0;
  const auto next = [&at](int64_t n, size_t size) {
    const int64_t begin = at;
    at = scan_align(at + n * static_cast<int64_t>(size));
    return begin;
  };
  const int64_t n = n_queries_ * k_;
  at_.queries = next(n_queries_ * pool_.dim, sizeof(float));
  at_.table = next(plan_.table_bytes, 1);
  at_.segments = next(static_cast<int64_t>(segments_.size()), sizeof(DeviceSegment));
  at_.filters = next(static_cast<int64_t>(filters_.size()), sizeof(DeviceFilter));
  at_.terms = next(n_terms_, sizeof(Term));
  at_.values = next(n_values_, sizeof(int64_t));
  at_.bitmaps = next(n_words_, sizeof(uint64_t));
  at_.counters = next(2, sizeof(uint64_t));
  at_.results = next(n, sizeof(float));
  at_.similarities = next(n, sizeof(float));
  at_.list_ids = next(n, sizeof(int64_t));
  at_.row_ids = next(n, sizeof(int64_t));
  at_.groups = next(n, sizeof(uint32_t));
  at_.ordinals = next(n, sizeof(uint32_t));
  at_.counts = next(n_queries_, sizeof(int32_t));
  at_.workspace = at;
}

void ScanBatch::pack(unsigned char* image, unsigned char* device) const noexcept {
  unsigned char* queries = image + at_.queries;
  unsigned char* terms = image + at_.terms;
  unsigned char* values = image + at_.values;
  unsigned char* words = image + at_.bitmaps;
  for (const ScanTicket* ticket : tickets_) {
    const ScanCall& call = ticket->call;
    const int64_t numbers = call.n_queries * pool_.dim;
    if (call.device_queries == nullptr) put(queries, call.queries, numbers);
    put(terms, call.terms, call.n_terms);
    put(values, call.values, call.n_values);
    queries += numbers * static_cast<int64_t>(sizeof(float));
    terms += call.n_terms * static_cast<int64_t>(sizeof(Term));
    values += call.n_values * static_cast<int64_t>(sizeof(int64_t));
    for (int64_t f = 0; f < call.n_filters; ++f) {
      put(words, call.filters[f].bitmap, call.filters[f].bitmap_words);
      words += call.filters[f].bitmap_words * static_cast<int64_t>(sizeof(uint64_t));
    }
  }
  pack_scan_table(plan_, image + at_.table);
  put(image + at_.segments, segments_.data(), static_cast<int64_t>(segments_.size()));
  for (size_t f = 0; f < filters_.size(); ++f) {
    DeviceFilter filter = filters_[f];
    if (filter.bitmap != nullptr) {
      const auto word = static_cast<int64_t>(reinterpret_cast<uintptr_t>(filter.bitmap)) - 1;
      filter.bitmap = reinterpret_cast<const uint64_t*>(device + at_.bitmaps) + word;
    }
    put(image + at_.filters + f * sizeof filter, &filter, 1);
  }
  std::memset(image + at_.counters, 0, 2 * sizeof(uint64_t));
}

Status ScanBatch::run(Runtime& runtime, const unsigned char* image, unsigned char* device, unsigned char* results,
                      Stream stream) const {
  std::vector<Event> waited;
  for (const ScanTicket* ticket : tickets_) {
    for (const auto& list : ticket->pins) {
      if (list == nullptr || list->arrives == nullptr) continue;
      if (std::find(waited.begin(), waited.end(), list->arrives.get()) != waited.end()) continue;
      waited.push_back(list->arrives.get());
      if (runtime.wait(stream, list->arrives.get()) != Status::kOk) return Status::kFailed;
    }
  }
  if (runtime.copy_in(device, image, image_bytes(), stream) != Status::kOk) return Status::kFailed;
  unsigned char* queries = device + at_.queries;
  for (const ScanTicket* ticket : tickets_) {
    const ScanCall& call = ticket->call;
    const int64_t bytes = call.n_queries * pool_.dim * static_cast<int64_t>(sizeof(float));
    if (call.device_queries != nullptr && runtime.copy_within(queries, call.device_queries, bytes, stream) != Status::kOk) {
      return Status::kFailed;
    }
    queries += bytes;
  }
  ScanArguments arguments;
  arguments.pages = pages_;
  arguments.queries = reinterpret_cast<const float*>(device + at_.queries);
  arguments.table = device + at_.table;
  arguments.segments = reinterpret_cast<const DeviceSegment*>(device + at_.segments);
  arguments.filters = reinterpret_cast<const DeviceFilter*>(device + at_.filters);
  arguments.terms = reinterpret_cast<const Term*>(device + at_.terms);
  arguments.values = reinterpret_cast<const int64_t*>(device + at_.values);
  arguments.min_similarity = tickets_[0]->call.min_similarity;
  arguments.scores = reinterpret_cast<float*>(device + at_.results);
  arguments.similarities = reinterpret_cast<float*>(device + at_.similarities);
  arguments.list_ids = reinterpret_cast<int64_t*>(device + at_.list_ids);
  arguments.row_ids = reinterpret_cast<int64_t*>(device + at_.row_ids);
  arguments.groups = reinterpret_cast<uint32_t*>(device + at_.groups);
  arguments.ordinals = reinterpret_cast<uint32_t*>(device + at_.ordinals);
  arguments.counts = reinterpret_cast<int32_t*>(device + at_.counts);
  arguments.counters = reinterpret_cast<uint64_t*>(device + at_.counters);
  arguments.workspace = device + at_.workspace;
  scan(plan_, arguments, stream);
  return runtime.copy_out(results, device + at_.counters, result_bytes(), stream);
}

void ScanBatch::unpack(const unsigned char* results) const noexcept {
  const auto array = [&](int64_t at) { return results + (at - at_.counters); };
  const auto* const scores = reinterpret_cast<const float*>(array(at_.results));
  const auto* const similarities = reinterpret_cast<const float*>(array(at_.similarities));
  const auto* const list_ids = reinterpret_cast<const int64_t*>(array(at_.list_ids));
  const auto* const row_ids = reinterpret_cast<const int64_t*>(array(at_.row_ids));
  const auto* const groups = reinterpret_cast<const uint32_t*>(array(at_.groups));
  const auto* const ordinals = reinterpret_cast<const uint32_t*>(array(at_.ordinals));
  const auto* const counts = reinterpret_cast<const int32_t*>(array(at_.counts));
  const auto* const counters = reinterpret_cast<const uint64_t*>(array(at_.counters));
  int64_t query = 0;
  for (ScanTicket* ticket : tickets_) {
    const int64_t n = ticket->call.n_queries;
    const int64_t before = query;
    query += n;
    try {
      ticket->counts.assign(counts + before, counts + before + n);
      ticket->candidates.resize(static_cast<size_t>(n * k_));
    } catch (const std::bad_alloc&) {
      ticket->lost = true;
      continue;
    }
    for (int64_t q = 0; q < n; ++q) {
      for (int64_t i = 0; i < ticket->counts[static_cast<size_t>(q)]; ++i) {
        const int64_t from = (before + q) * k_ + i;
        ticket->candidates[static_cast<size_t>(q * k_ + i)] =
            Candidate{scores[from], similarities[from], groups[from], ordinals[from], row_ids[from], list_ids[from]};
      }
    }
    ticket->rows_seen = static_cast<int64_t>(counters[0]) * n / n_queries_;
    ticket->rows_rescored = static_cast<int64_t>(counters[1]) * n / n_queries_;
  }
}

}  // namespace warpmem::cuda

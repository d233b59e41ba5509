// select_k, k-means and product quantisation on every instruction set that runs here, against plain loops.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "../../csrc/core/pq_code.hpp"
#include "../../csrc/core/score.hpp"
#include "../../csrc/core/select_k.hpp"
#include "../../csrc/cpu/fork.hpp"
#include "../../csrc/cpu/kmeans.hpp"
#include "../../csrc/cpu/op_dispatch.hpp"
#include "../../csrc/cpu/pq.hpp"
#include "../../csrc/cpu/select_k.hpp"
#include "check.hpp"
#include "failing_allocations.hpp"

using namespace warpmem;

namespace {

std::vector<float> numbers(int64_t n, unsigned seed, int levels = 0) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(static_cast<size_t>(n));
  for (float& x : out)
    x = levels > 0 ? static_cast<float>(static_cast<int>(random() % static_cast<unsigned>(levels))) : normal(random);
  return out;
}

std::vector<uint8_t> bytes(int64_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<uint8_t> out(static_cast<size_t>(n));
  for (uint8_t& x : out) x = static_cast<uint8_t>(random());
  return out;
}

}  // namespace

TEST(every_table_has_a_name_of_its_own) {
  CHECK(find_op_kernels("auto") == supported_op_kernels().front());
  CHECK(find_op_kernels("none") == nullptr);
  for (const OpKernels* ops : supported_op_kernels()) CHECK(find_op_kernels(ops->name) == ops);
  CHECK_EQ(std::string(supported_op_kernels().back()->name), "serial");
}

TEST(keys_keep_score_and_index) {
  for (const float score : {-std::numeric_limits<float>::infinity(), -2.5f, 0.0f, 3e38f}) {
    for (const uint32_t index : {0u, 1u, 0x7fffffffu}) {
      CHECK_EQ(key_score(select_key(score, index)), score);
      CHECK_EQ(key_index(select_key(score, index)), index);
    }
    CHECK(select_key(score, 1) > select_key(score, 2));
  }
  CHECK_EQ(select_key(-0.0f, 5), select_key(0.0f, 5));
  CHECK(select_key(1.0f, 9) > select_key(0.5f, 0));
}

TEST(select_k_equals_a_sort) {
  for (const OpKernels* ops : supported_op_kernels()) {
    for (const int64_t columns : {0, 1, 31, 63, 64, 65, 300, 2049, 9001}) {
      for (const int levels : {0, 1, 7}) {
        // Exactly as many numbers as needed: reading past them is an error that the sanitizer sees.
        const std::vector<float> scores = numbers(3 * columns, 1, levels);
        for (const int64_t k : {1, 33, 600, 4096}) {
          std::vector<float> values(static_cast<size_t>(3 * k), 99.0f);
          std::vector<int64_t> indexes(static_cast<size_t>(3 * k), 99);
          CHECK_EQ(select_k(*ops, scores.data(), 3, columns, k, nullptr, 2, values.data(), indexes.data()), -1);
          for (int64_t r = 0; r < 3; ++r) {
            std::vector<uint64_t> keys;
            for (int64_t i = 0; i < columns; ++i)
              keys.push_back(select_key(scores[static_cast<size_t>(r * columns + i)], static_cast<uint32_t>(i)));
            std::sort(keys.rbegin(), keys.rend());
            bool equal = true;
            for (int64_t i = 0; i < k; ++i) {
              const auto at = static_cast<size_t>(r * k + i);
              const bool found = i < columns;
              equal = equal && indexes[at] == (found ? static_cast<int64_t>(key_index(keys[static_cast<size_t>(i)])) : -1);
              equal = equal &&
                      values[at] == (found ? key_score(keys[static_cast<size_t>(i)]) : -std::numeric_limits<float>::infinity());
            }
            CHECK(equal);
          }
        }
      }
    }
  }
}

TEST(select_k_names_the_first_row_with_nan) {
  for (const OpKernels* ops : supported_op_kernels()) {
    for (const int64_t at : {0, 64, 299, 1000}) {
      std::vector<float> scores(4 * 1001, -1.0f);
      scores[static_cast<size_t>(2 * 1001 + at)] = std::nanf("");
      scores[static_cast<size_t>(3 * 1001 + at)] = -std::nanf("");
      float values[4];
      int64_t indexes[4];
      CHECK_EQ(select_k(*ops, scores.data(), 4, 1001, 1, nullptr, 3, values, indexes), 2);
    }
  }
}

TEST(nearest_equals_the_canonical_minimum) {
  for (const OpKernels* ops : supported_op_kernels()) {
    for (const int64_t dim : {1, 7, 15, 16, 33, 96}) {
      for (const int64_t k : {1, 2, 13, 40}) {
        for (const int64_t n : {0, 1, 17, 300}) {
          for (const bool inner : {false, true}) {
            for (const float scale : {1.0f, 1e-25f, 1e-40f, 1e20f}) {
              std::vector<float> rows = numbers(n * dim, 2, 5);
              std::vector<float> centroids = numbers(k * dim, 3, 5);
              for (float& x : rows) x *= scale;
              for (float& x : centroids) x *= scale;
              std::vector<int32_t> index(static_cast<size_t>(n));
              std::vector<double> values(static_cast<size_t>(n));
              kmeans_assign(*ops, rows.data(), n, dim, centroids.data(), k, inner, 2, index.data(), values.data());
              bool equal = true;
              for (int64_t i = 0; i < n; ++i) {
                int32_t best = 0;
                double best_value = 0.0;
                for (int64_t c = 0; c < k; ++c) {
                  const float* const x = rows.data() + i * dim;
                  const float* const y = centroids.data() + c * dim;
                  const double v = inner ? dot_f64(x, y, dim) : kSerialNearest.squared_distance(x, y, dim);
                  if (c == 0 || (inner ? v > best_value : v < best_value)) {
                    best = static_cast<int32_t>(c);
                    best_value = v;
                  }
                }
                equal = equal && index[static_cast<size_t>(i)] == best && values[static_cast<size_t>(i)] == best_value;
              }
              CHECK(equal);
            }
          }
        }
      }
    }
  }
}

TEST(kmeans_is_the_same_everywhere) {
  const int64_t n = 900;
  const int64_t dim = 20;
  const std::vector<float> rows = numbers(n * dim, 4, 3);
  for (const bool plus_plus : {false, true}) {
    for (const bool spherical : {false, true}) {
      std::vector<float> first;
      for (const OpKernels* ops : supported_op_kernels()) {
        for (const int64_t threads : {1, 3}) {
          KmeansOptions options;
          options.k = 60;
          options.iterations = 5;
          options.seed = 17;
          options.plus_plus = plus_plus;
          options.spherical = spherical;
          options.sample = 500;
          options.threads = threads;
          std::vector<float> centroids(static_cast<size_t>(options.k * dim));
          std::vector<int32_t> index(static_cast<size_t>(n));
          kmeans(*ops, rows.data(), n, dim, options, centroids.data(), index.data());
          if (first.empty()) first = centroids;
          CHECK(centroids == first);
          CHECK(*std::max_element(index.begin(), index.end()) < 60);
        }
      }
    }
  }
}

TEST(codes_survive_both_layouts) {
  for (const int64_t bits : {4, 8}) {
    for (const int64_t pq_dim : {1, 2, 5, 8}) {
      for (const int64_t n : {1, 31, 32, 33, 100}) {
        const int64_t size = pq_code_size(pq_dim, bits);
        std::vector<uint8_t> packed = bytes(n * size, 5);
        if (bits == 4 && pq_dim % 2 == 1) {
          for (int64_t i = 0; i < n; ++i) packed[static_cast<size_t>((i + 1) * size - 1)] &= 15;
        }
        std::vector<uint8_t> blocks(static_cast<size_t>(pq_blocks(n) * pq_dim * pq_group_bytes(bits)), 0xaa);
        pq_interleave_all(pq_dim, bits, packed.data(), n, 2, blocks.data());
        std::vector<uint8_t> back(packed.size(), 0x55);
        pq_deinterleave_all(pq_dim, bits, blocks.data(), n, 2, back.data());
        CHECK(back == packed);
        bool equal = true;
        for (int64_t r = 0; r < pq_blocks(n) * 32; ++r) {
          for (int64_t s = 0; s < pq_dim; ++s) {
            const uint8_t* const block = blocks.data() + r / 32 * pq_dim * pq_group_bytes(bits);
            const uint8_t wanted = r < n ? pq_get(packed.data() + r * size, s, bits) : uint8_t{0};
            equal = equal && pq_block_get(block, r % 32, s, bits) == wanted;
          }
        }
        CHECK(equal);
      }
    }
  }
}

TEST(pq_scan_equals_plain_sums) {
  for (const OpKernels* ops : supported_op_kernels()) {
    for (const int64_t bits : {4, 8}) {
      for (const int64_t pq_dim : {1, 3, 4, 17, 257}) {
        for (const int64_t n : {0, 1, 33, 2500}) {
          const int64_t entries = int64_t{1} << bits;
          const int64_t size = pq_code_size(pq_dim, bits);
          const std::vector<uint8_t> packed = bytes(n * size, 6);
          const std::vector<float> luts = numbers(2 * pq_dim * entries, 7);
          std::vector<uint8_t> blocks(static_cast<size_t>(pq_blocks(n) * pq_dim * pq_group_bytes(bits)));
          pq_interleave_all(pq_dim, bits, packed.data(), n, 1, blocks.data());
          PqScan scan;
          scan.pq_dim = pq_dim;
          scan.bits = bits;
          scan.codes = blocks.data();
          scan.rows = n;
          scan.luts = luts.data();
          scan.queries = 2;
          scan.k = 40;
          scan.threads = 2;
          std::vector<float> values(80);
          std::vector<int64_t> indexes(80);
          pq_scan(*ops, scan, values.data(), indexes.data());
          for (int64_t q = 0; q < 2; ++q) {
            const float* const lut = luts.data() + q * pq_dim * entries;
            std::vector<uint8_t> quantized(static_cast<size_t>(pq_dim * 16));
            double scale = 0.0;
            double bias = 0.0;
            if (bits == 4) pq_quantize_lut(lut, pq_dim, quantized.data(), &scale, &bias);
            std::vector<uint64_t> keys;
            for (int64_t r = 0; r < n; ++r) {
              float sum = 0.0f;
              uint32_t integer = 0;
              for (int64_t s = 0; s < pq_dim; ++s) {
                const uint8_t c = pq_get(packed.data() + r * size, s, bits);
                sum = s == 0 ? lut[c] : sum + lut[s * entries + c];
                if (bits == 4) integer += quantized[static_cast<size_t>(s * 16 + c)];
              }
              keys.push_back(bits == 8 ? select_key(sum, static_cast<uint32_t>(r))
                                       : select_key(integer, static_cast<uint32_t>(r)));
            }
            std::sort(keys.rbegin(), keys.rend());
            for (int64_t i = 0; i < std::min<int64_t>(n, 40); ++i) {
              const uint64_t key = keys[static_cast<size_t>(i)];
              CHECK_EQ(indexes[static_cast<size_t>(q * 40 + i)], static_cast<int64_t>(key_index(key)));
              CHECK_EQ(values[static_cast<size_t>(q * 40 + i)],
                       bits == 8 ? key_score(key) : pq_integer_score(key_integer(key), scale, bias));
            }
            for (int64_t i = n; i < 40; ++i) CHECK_EQ(indexes[static_cast<size_t>(q * 40 + i)], -1);
          }
        }
      }
    }
  }
}

TEST(tables_are_canonical) {
  for (const OpKernels* ops : supported_op_kernels()) {
    for (const int64_t dsub : {1, 3, 8, 20, 32, 33, 100}) {
      PqShape shape;
      shape.pq_dim = 3;
      shape.bits = 4;
      shape.dsub = dsub;
      const std::vector<float> books = numbers(3 * 16 * dsub, 8);
      const std::vector<float> query = numbers(3 * dsub, 9);
      std::vector<float> lut(3 * 16);
      for (const bool l2 : {false, true}) {
        pq_lut(*ops, shape, books.data(), query.data(), 1, l2, 1, lut.data());
        for (int64_t e = 0; e < 48; ++e) {
          const float* const x = query.data() + e / 16 * dsub;
          const float* const y = books.data() + e * dsub;
          CHECK_EQ(lut[static_cast<size_t>(e)],
                   l2 ? static_cast<float>(-kSerialNearest.squared_distance(x, y, dsub)) : dot(x, y, dsub));
        }
      }
    }
  }
}

TEST(encoding_and_training_are_the_same_everywhere) {
  PqShape shape;
  shape.pq_dim = 5;
  shape.bits = 4;
  shape.dsub = 9;
  const std::vector<float> rows = numbers(400 * shape.dim(), 10);
  std::vector<float> first_books;
  std::vector<uint8_t> first_codes;
  for (const OpKernels* ops : supported_op_kernels()) {
    std::vector<float> books(5 * 16 * 9);
    pq_train(*ops, shape, rows.data(), 400, 3, 4, 2, books.data());
    std::vector<uint8_t> codes(400 * 3);
    pq_encode(*ops, shape, books.data(), rows.data(), 400, 2, codes.data());
    if (first_books.empty()) {
      first_books = books;
      first_codes = codes;
    }
    CHECK(books == first_books);
    CHECK(codes == first_codes);
    std::vector<float> decoded(rows.size());
    pq_decode(shape, books.data(), codes.data(), 400, 2, decoded.data());
    std::vector<uint8_t> again(codes.size());
    pq_encode(*ops, shape, books.data(), decoded.data(), 400, 1, again.data());
    CHECK(again == codes);
  }
}

TEST(forked_work_is_done_once_and_failures_come_back) {
  for (const int64_t threads : {1, 4}) {
    std::vector<int> done(1000);
    fork_pieces(1000, 7, threads, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) ++done[static_cast<size_t>(i)];
    });
    CHECK(std::count(done.begin(), done.end(), 1) == 1000);
    bool thrown = false;
    try {
      fork_pieces(100, 1, threads, [](int64_t first, int64_t) {
        if (first == 50) throw std::runtime_error("fifty");
      });
    } catch (const std::runtime_error&) {
      thrown = true;
    }
    CHECK(thrown);
  }
}

TEST(every_failed_allocation_is_reported_and_the_next_call_is_right) {
  PqShape shape;
  shape.pq_dim = 4;
  shape.bits = 4;
  shape.dsub = 8;
  const std::vector<float> rows = numbers(300 * 32, 20);
  KmeansOptions options;
  options.k = 20;
  options.iterations = 3;
  for (const OpKernels* ops : supported_op_kernels()) {
    std::vector<float> centroids(20 * 32), books(4 * 16 * 8), values(300 * 5);
    std::vector<int32_t> index(300);
    std::vector<uint8_t> codes(300 * 2);
    std::vector<int64_t> places(300 * 5);
    const std::vector<std::function<void()>> calls = {
        [&] { kmeans(*ops, rows.data(), 300, 32, options, centroids.data(), index.data()); },
        [&] { pq_train(*ops, shape, rows.data(), 300, 3, 2, 1, books.data()); },
        [&] { pq_encode(*ops, shape, books.data(), rows.data(), 300, 1, codes.data()); },
        [&] { select_k(*ops, rows.data(), 300, 32, 5, nullptr, 1, values.data(), places.data()); }};
    for (const auto& call : calls) {
      call();
      const auto state = std::make_tuple(centroids, index, books, codes, values, places);
      int refused = 0;
      for (int64_t n = 0;; ++n) {
        allocations_left = n;
        try {
          call();
          allocations_left = -1;
          break;
        } catch (const std::bad_alloc&) {
          allocations_left = -1;
          ++refused;
        }
      }
      CHECK(refused > 0);
      CHECK(state == std::make_tuple(centroids, index, books, codes, values, places));
    }
  }
}

TEST(tables_as_bytes_are_those_of_core) {
  const auto check_table = [](const std::vector<float>& lut) {
    const auto pq_dim = static_cast<int64_t>(lut.size() / 16);
    std::vector<uint8_t> expected(lut.size()), found(lut.size());
    double scale = 0.0, bias = 0.0;
    pq_quantize_lut(lut.data(), pq_dim, expected.data(), &scale, &bias);
    for (const OpKernels* ops : supported_op_kernels()) {
      double own_scale = -1.0, own_bias = -1.0;
      ops->pq->quantize(lut.data(), pq_dim, found.data(), &own_scale, &own_bias);
      CHECK(found == expected);
      CHECK_EQ(own_scale, scale);
      CHECK_EQ(own_bias, bias);
    }
  };
  for (const int64_t pq_dim : {1, 2, 96, 300}) {
    for (const int levels : {0, 1, 3}) {
      std::vector<float> lut = numbers(pq_dim * 16, 21, levels);
      lut[0] = -0.0f;
      check_table(lut);
    }
  }
  for (int step = 1; step < 200; ++step) {  // entries halfway between two bytes
    std::vector<float> lut(256, 0.0f);
    for (size_t i = 1; i < lut.size(); ++i)
      lut[i] = i % 16 == 0 ? 0.0f : (static_cast<float>(i) - 0.5f) * static_cast<float>(step);
    lut[1] = 255.0f * static_cast<float>(step);
    check_table(lut);
  }
  for (const float tiny : {1e-45f, 1e-40f, 1e-38f, 1e38f}) {
    std::vector<float> lut = numbers(32, 21, 0);
    for (float& entry : lut) entry *= tiny;
    check_table(lut);
  }
}

int main(int argc, char** argv) { return check::run_tests(argc, argv); }

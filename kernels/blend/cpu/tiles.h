// The walk along the lists of one tile. Included once for each instruction set, which defines LANES and ISA: a vector of
// LANES floats (or half as many doubles) holds a block of a tile's pixels. The compiler's own vector types, no intrinsics.

namespace jsplat::ISA {

#define INLINE inline __attribute__((always_inline))

template <class S, int N>
struct Vectors {
  typedef S V __attribute__((vector_size(N * sizeof(S))));
  typedef S Unaligned __attribute__((vector_size(N * sizeof(S)), aligned(sizeof(S)), may_alias));
  using Int = std::conditional_t<sizeof(S) == 4, int32_t, int64_t>;
  typedef Int M __attribute__((vector_size(N * sizeof(S))));  // of comparisons: 0 or -1
};

template <class S>
constexpr int lanes = LANES * 4 / int(sizeof(S));

template <class S, int N = lanes<S>>
INLINE typename Vectors<S, N>::V load(const S* from) {
  return *reinterpret_cast<const typename Vectors<S, N>::Unaligned*>(from);
}
template <class S, int N = lanes<S>>
INLINE void store(S* to, typename Vectors<S, N>::V x) {
  *reinterpret_cast<typename Vectors<S, N>::Unaligned*>(to) = x;
}

// 2^x for x of at most 1; 0 where that is subnormal. The polynomials have the least relative error on [-1/2, 1/2] that
// their degree allows (Remez's exchange): 8e-8 in float32, 4e-20 before rounding in float64.
constexpr double EXP2_SINGLE[] = {1.3276472632e-3, 9.6755413431e-3, 5.5507132719e-2,
                                  0.24022119724,   0.69314696707,   1.0000000717};
constexpr double EXP2_DOUBLE[] = {2.5623409293273941e-11, 4.4566277045703457e-10, 7.0549768723216026e-9,
                                  1.0178051520164581e-7,  1.3215486584465596e-6,  1.5252733855476380e-5,
                                  1.5403530393622153e-4,  1.3333558146391245e-3,  9.6181291076283082e-3,
                                  5.5504108664821695e-2,  0.24022650695910072,    0.69314718055994531,
                                  1.0};

template <class S, int N = lanes<S>>
INLINE typename Vectors<S, N>::V exp2(typename Vectors<S, N>::V x) {
  using V = typename Vectors<S, N>::V;
  using M = typename Vectors<S, N>::M;
  constexpr bool single = sizeof(S) == 4;
  const S least = single ? -126 : -1022;
  const M normal = x >= least;
  x = normal ? x : V{} + least;
  const S round = single ? S(12582912) : S(6755399441055744);  // 1.5 * 2^23, 1.5 * 2^52: adding it rounds to integers
  const V shifted = x + round;
  const V f = x - (shifted - round);
  V value{};
  if constexpr (single) {
    for (double k : EXP2_SINGLE) value = value * f + S(k);
  } else {
    for (double k : EXP2_DOUBLE) value = value * f + S(k);
  }
  const V power = (V)((M)value + ((M)shifted << (single ? 23 : 52)));
  return normal ? power : V{};
}

template <class M>
INLINE bool any(M mask) {
  int64_t words[sizeof(M) / 8], found = 0;
  std::memcpy(words, &mask, sizeof mask);
  for (int64_t word : words) found |= word;
  return found;
}

constexpr int CHUNK = 32;  // hits that are blended together; their numbers stay in the first cache
constexpr int MOMENTS = 8; // 1, x, y, xx, xy, yy, and two to fill it up

template <class S>
struct Chunk {  // of one tile's list; places relative to the tile's centre, each attribute in a row
  int count;
  alignas(64) S x[CHUNK], y[CHUNK], u[CHUNK], v[CHUNK], w[CHUNK], opacity[CHUNK], limit[CHUNK], ratio_x[CHUNK],
      ratio_y[CHUNK];
};

// Pixels of a block: as square as they can be, so that few blocks are reached.
template <class S>
struct Block {
  static constexpr int L = lanes<S>, ACROSS = L >= 16 ? 4 : L >= 4 ? (L == 8 ? 4 : 2) : 2, DOWN = L / ACROSS;
  static constexpr int COUNT = TILE * TILE / L;
  static int left(int block) { return block % (TILE / ACROSS) * ACROSS; }
  static int top(int block) { return block / (TILE / ACROSS) * DOWN; }
  static int x(int block, int lane) { return left(block) + lane % ACROSS; }
  static int y(int block, int lane) { return top(block) + lane / ACROSS; }
};

constexpr int rounded(int count, int to) { return (count + to - 1) / to * to; }

constexpr int GROUP = 8;  // channels whose sums are in registers at the same time
constexpr int TOGETHER = 4;  // hits that are multiplied at the same time

template <class S>
struct Walk {
  using V = typename Vectors<S, lanes<S>>::V;
  using M = typename Vectors<S, lanes<S>>::M;
  static constexpr int L = lanes<S>, BLOCKS = Block<S>::COUNT;

  const Image<S>& image;
  const Lists<S>& lists;
  const int tile, begin, stop;
  const S center_x, center_y;
  Chunk<S> chunk;
  alignas(64) S transmittance[BLOCKS][L], weights[CHUNK + TOGETHER][L];
  bool open[BLOCKS];
  // Hits of the chunk that reach each block.
  int reached_count[BLOCKS];
  uint8_t reached[BLOCKS][CHUNK + TOGETHER];

  Walk(const Image<S>& image, const Lists<S>& lists, int tile)
      : image(image), lists(lists), tile(tile), begin(lists.starts[tile]), stop(lists.starts[tile + 1]),
        center_x(tile % image.across() * TILE + TILE / 2), center_y(tile / image.across() * TILE + TILE / 2) {
    for (int b = 0; b < BLOCKS; b++) {
      store(transmittance[b], V{} + 1);
      open[b] = false;
      for (int lane = 0; lane < L; lane++) {  // what lies outside the image is never open
        const bool inside = px(b, lane) < image.width && py(b, lane) < image.height;
        transmittance[b][lane] = inside ? 1 : 0, open[b] |= inside;
      }
    }
  }

  int px(int block, int lane) const { return int(center_x) - TILE / 2 + Block<S>::x(block, lane); }
  int py(int block, int lane) const { return int(center_y) - TILE / 2 + Block<S>::y(block, lane); }

  bool any_open() const {
    bool found = false;
    for (bool one : open) found |= one;
    return found;
  }

  // The next hits, and the blocks that they reach.
  void fetch(int from) {
    chunk.count = std::min(CHUNK, stop - from);
    for (int k = 0; k < CHUNK; k++) {
      if (k >= chunk.count) {  // reaches nothing
        chunk.limit[k] = -1, chunk.opacity[k] = 0;
        chunk.x[k] = chunk.y[k] = chunk.v[k] = 0, chunk.u[k] = chunk.w[k] = 1;
        continue;
      }
      const Splat<S>& splat = lists.splats[lists.ids[from + k]];
      chunk.x[k] = splat.x - center_x, chunk.y[k] = splat.y - center_y;
      chunk.u[k] = splat.u, chunk.v[k] = splat.v, chunk.w[k] = splat.w;
      chunk.opacity[k] = splat.opacity, chunk.limit[k] = splat.limit;
    }
    for (int k = 0; k < CHUNK; k += L) {
      const V u = load(chunk.u + k), v = load(chunk.v + k), w = load(chunk.w + k);
      store(chunk.ratio_x + k, V(v / u)), store(chunk.ratio_y + k, V(u * v / (v * v + w * w)));
    }
    for (int b = 0; b < BLOCKS; b++) {
      if (open[b]) find_reached(b);
    }
  }

  // As `reaches` in lists.h, hits side by side.
  void find_reached(int b) {
    const S left = Block<S>::left(b) + S(0.5) - TILE / 2, top = Block<S>::top(b) + S(0.5) - TILE / 2;
    const S right = left + (Block<S>::ACROSS - 1), bottom = top + (Block<S>::DOWN - 1);
    int found = 0;
    for (int k = 0; k < chunk.count; k += L) {
      const V mx = load(chunk.x + k), my = load(chunk.y + k), zero{};
      const V u = load(chunk.u + k), v = load(chunk.v + k), w = load(chunk.w + k);
      const V l = left - mx, r = right - mx, t = top - my, d = bottom - my;
      auto clamp = [](V x, V low, V high) INLINE_LAMBDA {
        x = x > low ? x : low;
        return x < high ? x : high;
      };
      auto size = [](V x) INLINE_LAMBDA { return x < 0 ? -x : x; };
      auto power = [&](V x, V y) INLINE_LAMBDA {
        const V ux = u * x, vy = v * y, down = w * y;
        V across = size(ux + vy) - S(ROUNDING) * (size(ux) + size(vy));
        across = across > 0 ? across : zero;
        return across * across + down * down;
      };
      const V x = clamp(zero, l, r), y = clamp(zero, t, d);
      const V one = power(x, clamp(-load(chunk.ratio_y + k) * x, t, d));
      const V other = power(clamp(-load(chunk.ratio_x + k) * y, l, r), y);
      const M hit = (one < other ? one : other) <= load(chunk.limit + k);
      typename Vectors<S, L>::Int is_hit[L];
      std::memcpy(is_hit, &hit, sizeof hit);
      for (int lane = 0; lane < L; lane++) reached[b][found] = k + lane, found -= int(is_hit[lane]);
    }
    reached_count[b] = found;
    for (int k = 0; k < TOGETHER; k++) reached[b][found + k] = 0;  // multiplied with weights of 0
  }

  // Weights of the hits that reach a block, nearest first; `each` gets what the backward pass wants besides. The
  // transmittance after the last one is kept.
  template <class Each>
  INLINE void weigh(int b, const Each& each) {
    V x, y;
    for (int lane = 0; lane < L; lane++) {
      x[lane] = Block<S>::x(b, lane) + S(0.5) - TILE / 2, y[lane] = Block<S>::y(b, lane) + S(0.5) - TILE / 2;
    }
    V before = load(transmittance[b]);
    const int count = reached_count[b];
    for (int m = 0; m < count; m++) {
      const int k = reached[b][m];
      const V dx = chunk.x[k] - x, dy = chunk.y[k] - y;
      const V across = chunk.u[k] * dx + chunk.v[k] * dy, down = chunk.w[k] * dy;
      const V unclipped = chunk.opacity[k] * exp2<S>(V(-(across * across + down * down)));
      V alpha = unclipped < S(CEILING) ? unclipped : V{} + S(CEILING);
      alpha = unclipped >= S(FLOOR) ? alpha : V{};
      const V weight = before >= S(STOP) ? alpha * before : V{};
      store(weights[m], weight);
      each(m, unclipped, alpha, before);
      before -= alpha * before;
    }
    for (int k = 0; k < TOGETHER; k++) store(weights[count + k], V{});
    store(transmittance[b], before);
    open[b] = any(before >= S(STOP));
  }
};

// target[m][n] += the sum over a block's pixels of factors[m][pixel] * columns[pixel][n], for the hits that reach it.
template <class S, int WIDE, int VECTORS>
INLINE void add_products(const S (*factors)[lanes<S>], const uint8_t* hits, int count, const S* columns, int stride,
                         S* target, int target_stride) {
  using V = typename Vectors<S, WIDE>::V;
  for (int m = 0; m < count; m += TOGETHER) {
    V sums[TOGETHER][VECTORS] = {};
    for (int p = 0; p < lanes<S>; p++) {
      V column[VECTORS];
      for (int n = 0; n < VECTORS; n++) column[n] = load<S, WIDE>(columns + p * stride + n * WIDE);
      for (int j = 0; j < TOGETHER; j++) {
        for (int n = 0; n < VECTORS; n++) sums[j][n] += factors[m + j][p] * column[n];
      }
    }
    for (int j = 0; j < TOGETHER && m + j < count; j++) {
      for (int n = 0; n < VECTORS; n++) {
        S* to = target + hits[m + j] * target_stride + n * WIDE;
        store<S, WIDE>(to, load<S, WIDE>(to) + sums[j][n]);
      }
    }
  }
}

template <class S>
void add_all_products(const S (*factors)[lanes<S>], const uint8_t* hits, int count, const S* columns, int width,
                      S* target) {
  constexpr int L = lanes<S>;
  int n = 0;
  for (; n + 2 * L <= width; n += 2 * L) {
    add_products<S, L, 2>(factors, hits, count, columns + n, width, target + n, width);
  }
  if (n + L <= width) add_products<S, L, 1>(factors, hits, count, columns + n, width, target + n, width), n += L;
  if constexpr (L >= 4) {
    if (n < width) add_products<S, L / 2, 1>(factors, hits, count, columns + n, width, target + n, width);
  }
}

// Columns of such products: whole vectors, or half of one.
template <class S>
int product_width(int columns) {
  return rounded(columns, std::max(lanes<S> / 2, 2));
}

// Features, depth and 1 of a chunk's hits, GROUP of them at a time; zeros fill each row up.
template <class S>
void fetch_values(const Walk<S>& walk, int from, int channels, int width, S* values) {
  for (int k = 0; k < walk.chunk.count; k++) {
    const int64_t id = walk.lists.ids[from + k];
    S* row = values + k * width;
    std::copy_n(walk.image.features + id * walk.image.channels, channels, row);
    row[channels] = walk.lists.splats[id].depth, row[channels + 1] = 1;
    std::fill(row + channels + 2, row + width, S(0));
  }
}

template <class S>
size_t forward_scratch(int channels) {
  const size_t width = rounded(channels + 2, GROUP);
  return width * (TILE * TILE + CHUNK);
}

// The blend of one tile into what the image shows. scratch: see above.
template <class S>
void forward_tile(const Image<S>& image, const Lists<S>& lists, int tile, const Shown<S>& out, S* scratch) {
  using V = typename Vectors<S, lanes<S>>::V;
  constexpr int L = lanes<S>;
  Walk<S> walk(image, lists, tile);
  const int channels = image.channels, width = rounded(channels + 2, GROUP);
  S *sums = scratch, *values = scratch + width * TILE * TILE;
  std::fill_n(sums, width * TILE * TILE, S(0));
  for (int from = walk.begin; from < walk.stop && walk.any_open(); from += CHUNK) {
    walk.fetch(from);
    fetch_values(walk, from, channels, width, values);
    for (int b = 0; b < walk.BLOCKS; b++) {
      if (!walk.open[b] || walk.reached_count[b] == 0) continue;
      walk.weigh(b, [](int, V, V, V) INLINE_LAMBDA {});
      for (int c = 0; c < width; c += GROUP) {
        S* to = sums + (b * width + c) * L;
        V total[GROUP];
        for (int j = 0; j < GROUP; j++) total[j] = load(to + j * L);
        for (int m = 0; m < walk.reached_count[b]; m++) {
          const V weight = load(walk.weights[m]);
          const S* value = values + walk.reached[b][m] * width + c;
          for (int j = 0; j < GROUP; j++) total[j] += weight * value[j];
        }
        for (int j = 0; j < GROUP; j++) store(to + j * L, total[j]);
      }
    }
  }
  for (int b = 0; b < walk.BLOCKS; b++) {
    for (int lane = 0; lane < L; lane++) {
      const int x = walk.px(b, lane), y = walk.py(b, lane);
      if (x >= image.width || y >= image.height) continue;
      const int64_t pixel = int64_t(y) * image.width + x;
      auto sum = [&](int c) { return sums[(b * width + c) * L + lane]; };
      for (int c = 0; c < channels; c++) out.channels[pixel * channels + c] = sum(c);
      out.depth[pixel] = sum(channels), out.alpha[pixel] = sum(channels + 1);
    }
  }
}

// What the walk of a chunk leaves behind for the sums over pixels.
template <class S>
struct Slopes {
  alignas(64) S unclipped[CHUNK + TOGETHER][lanes<S>], alpha[CHUNK][lanes<S>], before[CHUNK][lanes<S>],
      of_weight[CHUNK + TOGETHER][lanes<S>];
};

// Columns of a hit's gradients: the features' and the depth's, then those of x, y, u, v, w and opacity.
template <class S>
int hit_width(int channels) {
  return product_width<S>(channels + 1) + MOMENTS;
}

template <class S>
size_t backward_scratch(int channels) {
  const size_t width = product_width<S>(channels + 1), values = channels + 2;
  return TILE * TILE * (width + values + 1 + MOMENTS) + CHUNK * (width + values + MOMENTS) + TILE * TILE * 4;
}

// Gradients of x, y, u, v, w and opacity from the moments of the power's gradient about the tile's centre; the formulas
// of kernels/blend/gradients.py. What cancels in a needle does so here, where the pixels lie near the origin.
template <class S>
void shape_gradients(const S* moments, S x, S y, S u, S v, S w, S opacity, S* out) {
  const S m = moments[0], mx = moments[1], my = moments[2], mxx = moments[3], mxy = moments[4], myy = moments[5];
  const S p = -(u * x + v * y), q = -(w * y);
  const S mp = p * m + u * mx + v * my, mq = q * m + w * my;
  const S mpx = p * mx + u * mxx + v * mxy, mpy = p * my + u * mxy + v * myy;
  out[0] = -u * mp, out[1] = -v * mp - w * mq;
  out[2] = mpx - x * mp, out[3] = mpy - y * mp, out[4] = q * my + w * myy - y * mq;
  out[5] = -m / std::max(opacity, S(FLOOR));
}

// Gradients of each hit of one tile, as rows in the order of the Gaussians' runs; `touched` says which were written.
template <class S>
void backward_tile(const Image<S>& image, const Lists<S>& lists, int tile, int shaping, const Shown<const S>& shown,
                   const Shown<const S>& grad, S* rows, uint8_t* touched, S* scratch) {
  using V = typename Vectors<S, lanes<S>>::V;
  constexpr int L = lanes<S>, PIXELS = TILE * TILE;
  Walk<S> walk(image, lists, tile);
  for (int hit = walk.begin; hit < walk.stop; hit++) touched[lists.slots[hit]] = 0;
  if (walk.begin == walk.stop) return;
  const int channels = image.channels, width = product_width<S>(channels + 1);
  const int seen = shaping + 2, row_width = hit_width<S>(channels);
  S *by_pixel = scratch, *by_channel = by_pixel + PIXELS * width, *behind = by_channel + PIXELS * seen,
    *monomials = behind + PIXELS, *values = monomials + PIXELS * MOMENTS, *sums = values + CHUNK * seen,
    *moments = sums + CHUNK * width;
  std::fill_n(by_pixel, PIXELS * width, S(0));
  for (int b = 0; b < walk.BLOCKS; b++) {
    for (int lane = 0; lane < L; lane++) {
      const int x = walk.px(b, lane), y = walk.py(b, lane), place = b * L + lane;
      const S from_x = Block<S>::x(b, lane) + S(0.5) - TILE / 2, from_y = Block<S>::y(b, lane) + S(0.5) - TILE / 2;
      const S own[MOMENTS] = {1, from_x, from_y, from_x * from_x, from_x * from_y, from_y * from_y, 0, 0};
      std::copy_n(own, MOMENTS, monomials + place * MOMENTS);
      behind[place] = 0;
      if (x >= image.width || y >= image.height) {
        for (int c = 0; c < seen; c++) by_channel[(b * seen + c) * L + lane] = 0;
        continue;
      }
      const int64_t pixel = int64_t(y) * image.width + x, at = pixel * channels;
      std::copy_n(grad.channels + at, channels, by_pixel + place * width);
      by_pixel[place * width + channels] = grad.depth[pixel];
      S whole = 0;
      auto see = [&](int c, S slope, S value) { by_channel[(b * seen + c) * L + lane] = slope, whole += slope * value; };
      for (int c = 0; c < shaping; c++) see(c, grad.channels[at + c], shown.channels[at + c]);
      see(shaping, grad.depth[pixel], shown.depth[pixel]), see(shaping + 1, grad.alpha[pixel], shown.alpha[pixel]);
      behind[place] = whole;
    }
  }
  Slopes<S> slopes;
  for (int from = walk.begin; from < walk.stop && walk.any_open(); from += CHUNK) {
    walk.fetch(from);
    fetch_values(walk, from, shaping, seen, values);
    std::fill_n(sums, CHUNK * width, S(0)), std::fill_n(moments, CHUNK * MOMENTS, S(0));
    bool found[CHUNK] = {};
    for (int b = 0; b < walk.BLOCKS; b++) {
      const int count = walk.reached_count[b];
      if (!walk.open[b] || count == 0) continue;
      const uint8_t* hits = walk.reached[b];
      walk.weigh(b, [&](int m, V unclipped, V alpha, V before) INLINE_LAMBDA {
        store(slopes.unclipped[m], unclipped), store(slopes.alpha[m], alpha), store(slopes.before[m], before);
      });
      for (int m = 0; m < count; m += TOGETHER) {
        V total[TOGETHER] = {};
        for (int c = 0; c < seen; c++) {
          const V upstream = load(by_channel + (b * seen + c) * L);
          for (int j = 0; j < TOGETHER; j++) total[j] += upstream * values[hits[m + j] * seen + c];
        }
        for (int j = 0; j < TOGETHER; j++) store(slopes.of_weight[m + j], total[j]);
      }
      V rest = load(behind + b * L);
      for (int m = 0; m < count; m++) {
        found[hits[m]] = true;
        const V of_weight = load(slopes.of_weight[m]), unclipped = load(slopes.unclipped[m]);
        const V alpha = load(slopes.alpha[m]), before = load(slopes.before[m]);
        rest -= load(walk.weights[m]) * of_weight;
        const V of_power = -alpha * (before * of_weight - rest / (1 - alpha));
        // Where alpha is clipped neither opacity nor shape matters.
        const auto live = (unclipped >= S(FLOOR)) & (unclipped < S(CEILING)) & (before >= S(STOP));
        store(slopes.unclipped[m], V(live ? of_power : V{}));
      }
      for (int k = 0; k < TOGETHER; k++) store(slopes.unclipped[count + k], V{});
      store(behind + b * L, rest);
      add_all_products<S>(walk.weights, hits, count, by_pixel + b * L * width, width, sums);
      add_products<S, MOMENTS, 1>(slopes.unclipped, hits, count, monomials + b * L * MOMENTS, MOMENTS, moments, MOMENTS);
    }
    for (int k = 0; k < walk.chunk.count; k++) {
      if (!found[k]) continue;
      const int id = lists.ids[from + k], slot = lists.slots[from + k];
      S* row = rows + int64_t(slot) * row_width;
      const S* roots = image.roots + 3 * int64_t(id);
      std::copy_n(sums + k * width, width, row);
      shape_gradients(moments + k * MOMENTS, walk.chunk.x[k], walk.chunk.y[k], roots[0], roots[1], roots[2],
                      walk.chunk.opacity[k], row + width);
      touched[slot] = 1;
    }
  }
}

template <class S>
size_t sums_scratch(int channels) {
  const size_t width = product_width<S>(channels);
  return (TILE * TILE + CHUNK) * width;
}

// The sum of weight times picture `h w c` of each hit of one tile, as rows.
template <class S>
void sums_tile(const Image<S>& image, const Lists<S>& lists, int tile, const S* picture, S* rows, uint8_t* touched,
               S* scratch) {
  using V = typename Vectors<S, lanes<S>>::V;
  constexpr int L = lanes<S>;
  Walk<S> walk(image, lists, tile);
  for (int hit = walk.begin; hit < walk.stop; hit++) touched[lists.slots[hit]] = 0;
  const int channels = image.channels, width = product_width<S>(channels);
  S *by_pixel = scratch, *sums = scratch + TILE * TILE * width;
  std::fill_n(by_pixel, TILE * TILE * width, S(0));
  for (int b = 0; b < walk.BLOCKS; b++) {
    for (int lane = 0; lane < L; lane++) {
      const int x = walk.px(b, lane), y = walk.py(b, lane);
      if (x >= image.width || y >= image.height) continue;
      std::copy_n(picture + (int64_t(y) * image.width + x) * channels, channels, by_pixel + (b * L + lane) * width);
    }
  }
  for (int from = walk.begin; from < walk.stop && walk.any_open(); from += CHUNK) {
    walk.fetch(from);
    std::fill_n(sums, CHUNK * width, S(0));
    bool found[CHUNK] = {};
    for (int b = 0; b < walk.BLOCKS; b++) {
      if (!walk.open[b] || walk.reached_count[b] == 0) continue;
      walk.weigh(b, [](int, V, V, V) INLINE_LAMBDA {});
      for (int m = 0; m < walk.reached_count[b]; m++) found[walk.reached[b][m]] = true;
      add_all_products<S>(walk.weights, walk.reached[b], walk.reached_count[b], by_pixel + b * L * width, width, sums);
    }
    for (int k = 0; k < walk.chunk.count; k++) {
      if (!found[k]) continue;
      const int slot = lists.slots[from + k];
      std::copy_n(sums + k * width, width, rows + int64_t(slot) * width);
      touched[slot] = 1;
    }
  }
}

template <class S>
constexpr Kernels<S> kernels() {
  return {LANES, forward_tile<S>, backward_tile<S>, sums_tile<S>, forward_scratch<S>, backward_scratch<S>,
          sums_scratch<S>, hit_width<S>, product_width<S>};
}

#undef INLINE

}  // namespace jsplat::ISA

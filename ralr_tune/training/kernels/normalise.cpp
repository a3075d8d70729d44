// Batch normalisation followed by a sum and a ReLU, or by a ReLU and a mean over 2x2 pixels, for samples in
// channels_last: rows (pixels of all samples) of channels. Two passes over the memory forward and two backward, instead
// of five and seven with torch's operators. Computes in float32; a result is rounded once, when it is stored.
//
// Sums use the same chunks for any number of threads, so that results do not depend on it.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

namespace {

constexpr long LANES = 16;
constexpr long MAX_VECTORS = 4;   // vectors of a row in registers at once
constexpr long CHUNK = 1 << 15;   // elements that are summed in float32; the sums of chunks are added in float64

typedef float Lanes __attribute__((vector_size(64), aligned(4)));
typedef uint32_t Bits __attribute__((vector_size(64), aligned(4)));
typedef uint16_t Halves __attribute__((vector_size(32), aligned(2)));

struct Bfloat16 { uint16_t bits; };

inline Lanes load(const float* at) { return *reinterpret_cast<const Lanes*>(at); }
inline Lanes load(const Bfloat16* at) {
    return (Lanes)(__builtin_convertvector(*reinterpret_cast<const Halves*>(at), Bits) << 16);
}

inline void store(float* at, Lanes x) { *reinterpret_cast<Lanes*>(at) = x; }
inline void store(Bfloat16* at, Lanes x) {  // rounds to nearest, ties to even, like torch
    Bits bits = (Bits)x, odd = (Bits)(x != x);
    Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    *reinterpret_cast<Halves*>(at) = __builtin_convertvector((rounded & ~odd) | (odd & 0x7fc0), Halves);
}

inline float number(const float* at) { return *at; }
inline float number(const Bfloat16* at) {
    uint32_t bits = (uint32_t)at->bits << 16;
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

inline Lanes zero_where(Bits mask, Lanes x) { return (Lanes)((Bits)x & ~mask); }
inline Bits not_above_zero(Lanes x) { return (Bits)(x <= 0.0f); }  // false for NaN, as in torch

// Rows of `width` numbers. A thread processes one row at once, or two rows of an image if means over pixels are taken.
struct Shape {
    long channels, across, width, rows_at_once, number;

    // `across`: means in a row of the result; 0 if none are taken.
    Shape(long pixels, long channels, long across) : channels(channels), across(across) {
        // several pixels form a row: so many that it consists of whole vectors, and with few channels, to fill registers
        long least = 1;
        while (least * channels % LANES) least *= 2;
        long fold = across ? 1 : least > MAX_VECTORS ? least : MAX_VECTORS;
        while (fold > least && (fold * channels > MAX_VECTORS * LANES || pixels % fold)) fold /= 2;
        width = fold * channels;
        rows_at_once = across ? 4 * across : 1;
        number = pixels / (fold * rows_at_once);
    }
    double pixels() const { return (double)number * rows_at_once * (width / channels); }
    long chunk() const {
        long size = rows_at_once * width;
        return CHUNK > size ? CHUNK / size : 1;
    }
    long chunks() const { return (number + chunk() - 1) / chunk(); }
};

template <typename Work> void by_chunks(const Shape& s, int threads, Work work) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (long k = 0; k < s.chunks(); k++) {
        long first = k * s.chunk(), last = first + s.chunk();
        work(k, first, last < s.number ? last : s.number);
    }
}

// y = x * scale + add, with a scale and an addend for each position in a row.
struct Line {
    std::unique_ptr<float[]> scale, add;

    Line(const Shape& s, const float* weight, const float* bias, const float* mean, const float* inverse)
        : scale(new float[s.width]), add(new float[s.width]) {
        for (long w = 0; w < s.width; w++) {
            long c = w % s.channels;
            scale[w] = weight[c] * inverse[c];
            add[w] = bias[c] - mean[c] * scale[w];
        }
    }
};

// Two sums for each channel: first of each chunk, then of all.
struct Sums {
    const Shape& s;
    std::unique_ptr<float[]> parts;
    std::unique_ptr<double[]> first, second;

    explicit Sums(const Shape& s)
        : s(s), parts(new float[2 * s.chunks() * s.width]), first(new double[s.channels]()),
          second(new double[s.channels]()) {}
    float* part(long chunk) { return parts.get() + 2 * chunk * s.width; }
    void add_up() {
        for (long k = 0; k < s.chunks(); k++)
            for (long w = 0; w < s.width; w++) {
                first[w % s.channels] += part(k)[w];
                second[w % s.channels] += part(k)[s.width + w];
            }
    }
};

// The sums of x - shift and of its square.
template <typename T, int V>
void moments(const T* x, const Shape& s, long first, long last, const float* shift, float* out) {
    for (long at = 0; at < s.width; at += V * LANES) {
        Lanes one[V] = {}, two[V] = {}, by[V];
        for (int v = 0; v < V; v++) by[v] = load(shift + at + v * LANES);
        for (long row = first * s.rows_at_once; row < last * s.rows_at_once; row++)
            for (int v = 0; v < V; v++) {
                Lanes d = load(x + row * s.width + at + v * LANES) - by[v];
                one[v] += d;
                two[v] += d * d;
            }
        for (int v = 0; v < V; v++) {
            store(out + at + v * LANES, one[v]);
            store(out + s.width + at + v * LANES, two[v]);
        }
    }
}

template <typename T, int V>
void normalise(const T* x, const T* other, T* y, const Shape& s, long first, long last, const Line& line, bool relu) {
    for (long at = 0; at < s.width; at += V * LANES) {
        Lanes scale[V], add[V];
        for (int v = 0; v < V; v++) {
            scale[v] = load(&line.scale[at + v * LANES]);
            add[v] = load(&line.add[at + v * LANES]);
        }
        for (long row = first; row < last; row++)
            for (int v = 0; v < V; v++) {
                long place = row * s.width + at + v * LANES;
                Lanes z = load(x + place) * scale[v] + add[v];
                if (other) z += load(other + place);
                if (relu) z = zero_where(not_above_zero(z), z);
                store(y + place, z);
            }
    }
}

// The sums of the gradient before the ReLU, which is stored in `g` if that is not null, and of its product with
// x - mean. If nothing was added, the ReLU's mask is computed again: reading y would take longer.
template <typename T, int V>
void gradient_sums(const T* dy, const T* x, const T* y, T* g, const Shape& s, long first, long last, const Line& line,
                   const float* mean, bool relu, float* out) {
    for (long at = 0; at < s.width; at += V * LANES) {
        Lanes one[V] = {}, two[V] = {}, middle[V], scale[V], add[V];
        for (int v = 0; v < V; v++) {
            middle[v] = load(mean + at + v * LANES);
            scale[v] = load(&line.scale[at + v * LANES]);
            add[v] = load(&line.add[at + v * LANES]);
        }
        for (long row = first; row < last; row++)
            for (int v = 0; v < V; v++) {
                long place = row * s.width + at + v * LANES;
                Lanes in = load(x + place), d = load(dy + place);
                if (relu) d = zero_where(not_above_zero(y ? load(y + place) : in * scale[v] + add[v]), d);
                if (g) store(g + place, d);
                one[v] += d;
                two[v] += d * (in - middle[v]);
            }
        for (int v = 0; v < V; v++) {
            store(out + at + v * LANES, one[v]);
            store(out + s.width + at + v * LANES, two[v]);
        }
    }
}

// dx = scale * d + slope * (x - mean) + level
template <typename T, int V>
void gradient(const T* dy, const T* x, T* dx, const Shape& s, long first, long last, const Line& line,
              const float* mean, bool relu, const float* slope, const float* level) {
    for (long at = 0; at < s.width; at += V * LANES) {
        Lanes scale[V], add[V], middle[V], slopes[V], levels[V];
        for (int v = 0; v < V; v++) {
            scale[v] = load(&line.scale[at + v * LANES]);
            add[v] = load(&line.add[at + v * LANES]);
            middle[v] = load(mean + at + v * LANES);
            slopes[v] = load(slope + at + v * LANES);
            levels[v] = load(level + at + v * LANES);
        }
        for (long row = first; row < last; row++)
            for (int v = 0; v < V; v++) {
                long place = row * s.width + at + v * LANES;
                Lanes in = load(x + place), d = load(dy + place);
                if (relu) d = zero_where(not_above_zero(in * scale[v] + add[v]), d);
                store(dx + place, scale[v] * d + slopes[v] * (in - middle[v]) + levels[v]);
            }
    }
}

// Calls work(index in x, index in the means) for the first number of each 2x2 pixels.
template <typename Work> void by_squares(const Shape& s, long first, long last, long at, Work work) {
    for (long pair = first; pair < last; pair++)
        for (long mean = 0; mean < s.across; mean++)
            work((4 * pair * s.across + 2 * mean) * s.channels + at, (pair * s.across + mean) * s.channels + at);
}

template <typename T, int V>
void normalise_squares(const T* x, T* y, const Shape& s, long first, long last, const Line& line) {
    const long corners[4] = {0, s.channels, 2 * s.across * s.channels, (2 * s.across + 1) * s.channels};
    for (long at = 0; at < s.channels; at += V * LANES) {
        Lanes scale[V], add[V];
        for (int v = 0; v < V; v++) {
            scale[v] = load(&line.scale[at + v * LANES]);
            add[v] = load(&line.add[at + v * LANES]);
        }
        by_squares(s, first, last, at, [&](long in, long out) {
            for (int v = 0; v < V; v++) {
                Lanes sum = {};
                for (long corner : corners) {
                    Lanes z = load(x + in + corner + v * LANES) * scale[v] + add[v];
                    sum += zero_where(not_above_zero(z), z);
                }
                store(y + out + v * LANES, sum * 0.25f);
            }
        });
    }
}

template <typename T, int V>
void gradient_sums_squares(const T* dy, const T* x, const Shape& s, long first, long last, const Line& line,
                           const float* mean, float* result) {
    const long corners[4] = {0, s.channels, 2 * s.across * s.channels, (2 * s.across + 1) * s.channels};
    for (long at = 0; at < s.channels; at += V * LANES) {
        Lanes one[V] = {}, two[V] = {}, middle[V], scale[V], add[V];
        for (int v = 0; v < V; v++) {
            middle[v] = load(mean + at + v * LANES);
            scale[v] = load(&line.scale[at + v * LANES]);
            add[v] = load(&line.add[at + v * LANES]);
        }
        by_squares(s, first, last, at, [&](long in, long out) {
            for (int v = 0; v < V; v++) {
                Lanes share = load(dy + out + v * LANES) * 0.25f;
                for (long corner : corners) {
                    Lanes z = load(x + in + corner + v * LANES);
                    Lanes d = zero_where(not_above_zero(z * scale[v] + add[v]), share);
                    one[v] += d;
                    two[v] += d * (z - middle[v]);
                }
            }
        });
        for (int v = 0; v < V; v++) {
            store(result + at + v * LANES, one[v]);
            store(result + s.width + at + v * LANES, two[v]);
        }
    }
}

template <typename T, int V>
void gradient_squares(const T* dy, const T* x, T* dx, const Shape& s, long first, long last, const Line& line,
                      const float* mean, const float* slope, const float* level) {
    const long corners[4] = {0, s.channels, 2 * s.across * s.channels, (2 * s.across + 1) * s.channels};
    for (long at = 0; at < s.channels; at += V * LANES) {
        Lanes scale[V], add[V], middle[V], slopes[V], levels[V];
        for (int v = 0; v < V; v++) {
            scale[v] = load(&line.scale[at + v * LANES]);
            add[v] = load(&line.add[at + v * LANES]);
            middle[v] = load(mean + at + v * LANES);
            slopes[v] = load(slope + at + v * LANES);
            levels[v] = load(level + at + v * LANES);
        }
        by_squares(s, first, last, at, [&](long in, long out) {
            for (int v = 0; v < V; v++) {
                Lanes share = load(dy + out + v * LANES) * 0.25f;
                for (long corner : corners) {
                    long place = in + corner + v * LANES;
                    Lanes z = load(x + place);
                    Lanes d = zero_where(not_above_zero(z * scale[v] + add[v]), share);
                    store(dx + place, scale[v] * d + slopes[v] * (z - middle[v]) + levels[v]);
                }
            }
        });
    }
}

// Writes the result, given the scales and addends.
template <typename T, int V>
void write(const T* x, const T* other, T* y, const Shape& s, const Line& line, bool relu, int threads) {
    by_chunks(s, threads, [&](long, long first, long last) {
        if (s.across) normalise_squares<T, V>(x, y, s, first, last, line);
        else normalise<T, V>(x, other, y, s, first, last, line, relu);
    });
}

// `kept` receives mean and 1 / standard deviation; the running ones are updated with mean and unbiased variance.
template <typename T, int V>
void forward(const T* x, const T* other, T* y, const float* weight, const float* bias, float* running_mean,
             float* running_variance, double momentum, double epsilon, const Shape& s, bool relu, float* kept,
             int threads) {
    // numbers are shifted close to zero before they are squared; otherwise their variance could be lost in float32. The
    // shift is a mean of some pixels spread over the batch: a single one may be far from all others.
    std::unique_ptr<float[]> shift(new float[s.width]);
    long pixels = (long)s.pixels(), some = pixels < 16 ? pixels : 16;
    for (long w = 0; w < s.width; w++) {
        float sum = 0;
        for (long k = 0; k < some; k++) sum += number(x + pixels / some * k * s.channels + w % s.channels);
        shift[w] = sum / (float)some;
    }
    Sums sums(s);
    by_chunks(s, threads,
              [&](long k, long first, long last) { moments<T, V>(x, s, first, last, shift.get(), sums.part(k)); });
    sums.add_up();
    float *mean = kept, *inverse = kept + s.channels;
    for (long c = 0; c < s.channels; c++) {
        double off = sums.first[c] / s.pixels(), variance = sums.second[c] / s.pixels() - off * off;
        variance = variance < 0 ? 0 : variance;  // not std::max, which would replace NaN by 0
        mean[c] = (float)(shift[c] + off);
        inverse[c] = (float)(1 / std::sqrt(variance + epsilon));
        double unbiased = variance * s.pixels() / (s.pixels() - 1);
        running_mean[c] = (float)(momentum * mean[c] + (1 - momentum) * running_mean[c]);
        running_variance[c] = (float)(momentum * unbiased + (1 - momentum) * running_variance[c]);
    }
    write<T, V>(x, other, y, s, Line(s, weight, bias, mean, inverse), relu, threads);
}

// Normalises with the running mean and variance, which do not change.
template <typename T, int V>
void evaluate(const T* x, const T* other, T* y, const float* weight, const float* bias, const float* mean,
              const float* variance, double epsilon, const Shape& s, bool relu, int threads) {
    std::unique_ptr<float[]> inverse(new float[s.channels]);
    for (long c = 0; c < s.channels; c++) inverse[c] = (float)(1 / std::sqrt(variance[c] + epsilon));
    write<T, V>(x, other, y, s, Line(s, weight, bias, mean, inverse.get()), relu, threads);
}

template <typename T, int V>
void backward(const T* dy, const T* x, const T* y, T* g, T* dx, const float* weight, const float* bias,
              const float* kept, const Shape& s, bool relu, float* dweight, float* dbias, int threads) {
    const float *mean = kept, *inverse = kept + s.channels;
    Line line(s, weight, bias, mean, inverse);
    std::unique_ptr<float[]> middle(new float[s.width]), slope(new float[s.width]), level(new float[s.width]);
    for (long w = 0; w < s.width; w++) middle[w] = mean[w % s.channels];
    Sums sums(s);
    by_chunks(s, threads, [&](long k, long first, long last) {
        if (s.across) gradient_sums_squares<T, V>(dy, x, s, first, last, line, middle.get(), sums.part(k));
        else gradient_sums<T, V>(dy, x, y, g, s, first, last, line, middle.get(), relu, sums.part(k));
    });
    sums.add_up();
    for (long c = 0; c < s.channels; c++) {
        dbias[c] = (float)sums.first[c];
        dweight[c] = (float)(sums.second[c] * inverse[c]);
    }
    for (long w = 0; w < s.width; w++) {
        long c = w % s.channels;
        slope[w] = (float)(-line.scale[w] * sums.second[c] * inverse[c] * inverse[c] / s.pixels());
        level[w] = (float)(-line.scale[w] * sums.first[c] / s.pixels());
    }
    const T* d = g ? g : dy;  // in `g` the ReLU's mask is already applied
    by_chunks(s, threads, [&](long, long first, long last) {
        if (s.across) gradient_squares<T, V>(d, x, dx, s, first, last, line, middle.get(), slope.get(), level.get());
        else gradient<T, V>(d, x, dx, s, first, last, line, middle.get(), relu && !g, slope.get(), level.get());
    });
}

// Returns 0, or 1 if there is no memory for the sums: no exception may reach a caller that is not C++.
template <typename Work> int within_memory(Work work) {
    try {
        work();
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

}  // namespace

#define BY_WIDTH(FUNCTION, T, ...)                                            \
    if (s.width % (4 * LANES) == 0) FUNCTION<T, 4>(__VA_ARGS__);              \
    else if (s.width % (2 * LANES) == 0) FUNCTION<T, 2>(__VA_ARGS__);         \
    else FUNCTION<T, 1>(__VA_ARGS__);

// Rows must consist of whole vectors: see `fits` in normalise.py; with `across` the number of channels must be a
// multiple of LANES. Training needs at least two pixels. `other`: the summand or null.
// `across`: half of an image's width if the result is the mean of each 2x2 pixels, with a ReLU and without a sum;
// otherwise 0.
#define FORWARD(NAME, T)                                                                                              \
    extern "C" int NAME(const T* x, const T* other, T* y, const float* weight, const float* bias,                     \
                        float* running_mean, float* running_variance, double momentum, double epsilon, long pixels,   \
                        long channels, long across, int relu, float* kept, int threads) {                             \
        Shape s(pixels, channels, across);                                                                            \
        return within_memory([&] {                                                                                    \
            BY_WIDTH(forward, T, x, other, y, weight, bias, running_mean, running_variance, momentum, epsilon, s,     \
                     relu != 0, kept, threads)                                                                        \
        });                                                                                                           \
    }

#define EVALUATE(NAME, T)                                                                                             \
    extern "C" int NAME(const T* x, const T* other, T* y, const float* weight, const float* bias, const float* mean,  \
                        const float* variance, double epsilon, long pixels, long channels, long across, int relu,     \
                        int threads) {                                                                                \
        Shape s(pixels, channels, across);                                                                            \
        return within_memory([&] {                                                                                    \
            BY_WIDTH(evaluate, T, x, other, y, weight, bias, mean, variance, epsilon, s, relu != 0, threads)          \
        });                                                                                                           \
    }

// `y` and `g` (which receives the gradient of `other`) are null unless something was added before a ReLU.
#define BACKWARD(NAME, T)                                                                                             \
    extern "C" int NAME(const T* dy, const T* x, const T* y, T* g, T* dx, const float* weight, const float* bias,     \
                        const float* kept, long pixels, long channels, long across, int relu, float* dweight,         \
                        float* dbias, int threads) {                                                                  \
        Shape s(pixels, channels, across);                                                                            \
        return within_memory([&] {                                                                                    \
            BY_WIDTH(backward, T, dy, x, y, g, dx, weight, bias, kept, s, relu != 0, dweight, dbias, threads)         \
        });                                                                                                           \
    }

FORWARD(forward_float32, float)
FORWARD(forward_bfloat16, Bfloat16)
EVALUATE(evaluate_float32, float)
EVALUATE(evaluate_bfloat16, Bfloat16)
BACKWARD(backward_float32, float)
BACKWARD(backward_bfloat16, Bfloat16)

// LeNet5 and its input gradient for 16 images at a time, one in each lane of a vector: what a compiler makes of it.
// Layouts: values (channel, row, column, 16 images); weights of convolutions (in, row, column, out).
#include <cstring>

typedef float Lanes __attribute__((vector_size(64)));
typedef int Places __attribute__((vector_size(64)));

template <int IN, int OUT, int SIDE, int TILE>
static void convolve(const Lanes *x, const float *w, const float *bias, Lanes *y) {
    const int side = SIDE - 4;
    for (int o = 0; o < OUT; o += TILE)
        for (int row = 0; row < side; row++)
            for (int column = 0; column < side; column += 2) {
                Lanes sum[TILE][2];
                for (int k = 0; k < TILE; k++) sum[k][0] = sum[k][1] = Lanes{} + bias[o + k];
                for (int c = 0; c < IN; c++)
                    for (int i = 0; i < 5; i++)
                        for (int j = 0; j < 5; j++) {
                            const Lanes *from = x + (c * SIDE + row + i) * SIDE + column + j;
                            const float *by = w + ((c * 5 + i) * 5 + j) * OUT + o;
                            for (int k = 0; k < TILE; k++) sum[k][0] += by[k] * from[0], sum[k][1] += by[k] * from[1];
                        }
                for (int k = 0; k < TILE; k++)
                    for (int n = 0; n < 2; n++) y[((o + k) * side + row) * side + column + n] = sum[k][n];
            }
}

template <int IN, int OUT, int SIDE>
static void back(const Lanes *slope, const float *w, Lanes *to) {
    const int side = SIDE - 4;
    memset(to, 0, sizeof(Lanes) * IN * SIDE * SIDE);
    for (int row = 0; row < side; row++)
        for (int column = 0; column < side; column++) {
            Lanes here[OUT];
            for (int o = 0; o < OUT; o++) here[o] = slope[(o * side + row) * side + column];
            for (int c = 0; c < IN; c++)
                for (int i = 0; i < 5; i++) {
                    Lanes *at = to + (c * SIDE + row + i) * SIDE + column, sum[5];
                    const float *by = w + (c * 5 + i) * 5 * OUT;
                    for (int j = 0; j < 5; j++) sum[j] = at[j];
                    for (int o = 0; o < OUT; o++)
                        for (int j = 0; j < 5; j++) sum[j] += by[j * OUT + o] * here[o];
                    for (int j = 0; j < 5; j++) at[j] = sum[j];
                }
        }
}

static void pool(const Lanes *x, int channels, int side, Lanes *y, Places *which) {  // and ReLU: -1 where it is 0
    for (int c = 0; c < channels; c++)
        for (int row = 0; row < side; row++)
            for (int column = 0; column < side; column++) {
                const Lanes *at = x + (c * 2 * side + 2 * row) * 2 * side + 2 * column;
                Lanes most = {};
                Places place = Places{} - 1;
                for (int k = 0; k < 4; k++) {
                    Lanes value = at[k / 2 * 2 * side + k % 2];
                    Places more = value > most;
                    most = more ? value : most;
                    place = more ? Places{} + k : place;
                }
                *y++ = most, *which++ = place;
            }
}

static void unpool(const Lanes *slope, const Places *which, int channels, int side, Lanes *to) {
    for (int c = 0; c < channels; c++)
        for (int row = 0; row < side; row++)
            for (int column = 0; column < side; column++, slope++, which++)
                for (int k = 0; k < 4; k++)
                    to[(c * 2 * side + 2 * row + k / 2) * 2 * side + 2 * column + k % 2] = *which == k ? *slope : Lanes{};
}

template <int IN, int OUT, int TILE>
static void multiply(const Lanes *x, const float *w, const float *bias, Lanes *y) {  // w (IN, OUT)
    for (int o = 0; o < OUT; o += TILE) {
        Lanes sum[TILE];
        for (int k = 0; k < TILE; k++) sum[k] = Lanes{} + (bias ? bias[o + k] : 0);
        for (int i = 0; i < IN; i++)
            for (int k = 0; k < TILE; k++) sum[k] += w[i * OUT + o + k] * x[i];
        for (int k = 0; k < TILE; k++) y[o + k] = sum[k];
    }
}

template <int N> static void relu(Lanes *x) { for (int i = 0; i < N; i++) x[i] = x[i] > 0 ? x[i] : Lanes{}; }
template <int N> static void mask(Lanes *slope, const Lanes *x) {
    for (int i = 0; i < N; i++) slope[i] = x[i] > 0 ? slope[i] : Lanes{};
}

struct Kept { Lanes image[1024], big[4704], c1[1176], mid[1600], c2[400], f3[120], f4[84], a[1176], b[400]; Places p1[1176], p2[400]; };
static Kept kept[64];

// w: c1, c2 as above; f3, f4, f5 (in, out), and the same (out, in); b: their biases. x (blocks, 1024, 16), logits (blocks, 10, 16).
extern "C" void forward(int blocks, const float *x, const float *const *w, const float *const *b, float *logits) {
    for (int n = 0; n < blocks; n++) {
        Kept &k = kept[n];
        memcpy(k.image, x + n * 16384, sizeof k.image);
        convolve<1, 6, 32, 6>(k.image, w[0], b[0], k.big), pool(k.big, 6, 14, k.c1, k.p1);
        convolve<6, 16, 14, 8>(k.c1, w[1], b[1], k.mid), pool(k.mid, 16, 5, k.c2, k.p2);
        multiply<400, 120, 12>(k.c2, w[2], b[2], k.f3), relu<120>(k.f3);
        multiply<120, 84, 12>(k.f3, w[3], b[3], k.f4), relu<84>(k.f4);
        multiply<84, 10, 10>(k.f4, w[4], b[4], k.a);
        memcpy(logits + n * 160, k.a, 640);
    }
}

// slopes of the logits (blocks, 10, 16) to those of the images (blocks, 1024, 16)
extern "C" void backward(int blocks, const float *slopes, const float *const *w, float *gradient) {
    for (int n = 0; n < blocks; n++) {
        Kept &k = kept[n];
        memcpy(k.a, slopes + n * 160, 640);
        multiply<10, 84, 12>(k.a, w[7], nullptr, k.b), mask<84>(k.b, k.f4);
        multiply<84, 120, 12>(k.b, w[6], nullptr, k.a), mask<120>(k.a, k.f3);
        multiply<120, 400, 16>(k.a, w[5], nullptr, k.b);
        unpool(k.b, k.p2, 16, 5, k.mid), back<6, 16, 14>(k.mid, w[1], k.a);
        unpool(k.a, k.p1, 6, 14, k.big), back<1, 6, 32>(k.big, w[0], k.image);
        memcpy(gradient + n * 16384, k.image, sizeof k.image);
    }
}

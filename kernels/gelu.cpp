// GELU with vectors instead of ggml's table, which takes an element at a time and rounds x and the result to f16:
// 0.5*x*(1 + tanh(u)) = x/(1 + exp(-2*u)) with u = sqrt(2/pi)*x*(1 + a*x*x).

#include "cpu.h"
#include "vec.h"

#if GGML_XEON_GELU && defined(XEON_AVX2)

void ggml_vec_gelu_f32(const int n, float * y, const float * x) {
    int i = 0;
#if defined(XEON_AVX512)
    const __m512 one = _mm512_set1_ps(1.0f);
    const __m512 a = _mm512_set1_ps(GELU_COEF_A);
    const __m512 b = _mm512_set1_ps(-2.0f * SQRT_2_OVER_PI);
    for (; i < n; i += 16) {
        const __mmask16 live = (__mmask16) (n - i < 16 ? (1u << (n - i)) - 1 : 0xFFFF);
        const __m512 v = _mm512_maskz_loadu_ps(live, x + i);
        const __m512 u = _mm512_mul_ps(_mm512_mul_ps(v, b), _mm512_fmadd_ps(_mm512_mul_ps(v, v), a, one));
        _mm512_mask_storeu_ps(y + i, live, _mm512_div_ps(v, _mm512_add_ps(one, ggml_v_expf(u))));
    }
#else
    const __m256 one = _mm256_set1_ps(1.0f);
    const __m256 a = _mm256_set1_ps(GELU_COEF_A);
    const __m256 b = _mm256_set1_ps(-2.0f * SQRT_2_OVER_PI);
    for (; i + 7 < n; i += 8) {
        const __m256 v = _mm256_loadu_ps(x + i);
        const __m256 u = _mm256_mul_ps(_mm256_mul_ps(v, b), _mm256_fmadd_ps(_mm256_mul_ps(v, v), a, one));
        _mm256_storeu_ps(y + i, _mm256_div_ps(v, _mm256_add_ps(one, ggml_v_expf(u))));
    }
    for (; i < n; i++) {
        y[i] = ggml_gelu_f32(x[i]);
    }
#endif
}

#endif

/* Scalar maths that the compiler vectorises inside BP_SIMD loops: no branches, no tables, no calls into libm (double erf apart).
 *
 * The polynomials are minimax fits of our own (Remez exchange, relative error; the bound stands beside each). The errors, in
 * units in the last place against a reference of higher precision, are checked over the whole range by
 * tests/bpcore/test_vmath.py. Float and double alike, but for erf, which is libm's in double:
 *     v_exp 1.1   v_log 1.1   v_log1p 1.5   v_tanh 2.6   v_sigmoid 2.4   v_softplus 2.7   v_erf 1.7
 * NaN gives NaN everywhere. v_exp rounds to subnormals and infinity; the *_ftz and sigmoid forms flush results below the
 * smallest normal number to zero. Nothing needs -ffast-math, and infinities and NaN are not special paths but fall out. */

#undef BP_BITS
#undef BP_MANTISSA
#undef BP_BIAS
#undef BP_ROUND
#undef BP_LN2_HI
#undef BP_LN2_LO
#undef BP_EXP_MIN
#undef BP_ABS
#undef BP_COPYSIGN
#if BP_F32
#define BP_BITS uint32_t
#define BP_ABS fabsf
#define BP_COPYSIGN copysignf
#define BP_MANTISSA 23
#define BP_BIAS 127
#define BP_ROUND 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits */
#define BP_LN2_HI 0.693145751953125f /* 15 bits: its product with an exponent is exact */
#define BP_LN2_LO 1.42860682030941723e-6f
#define BP_EXP_MIN -87.33654f /* exp of this is the smallest normal number */
#else
#define BP_BITS uint64_t
#define BP_ABS fabs
#define BP_COPYSIGN copysign
#define BP_MANTISSA 52
#define BP_BIAS 1023
#define BP_ROUND 6755399441055744.0
#define BP_LN2_HI 0.6931471805601177038624883 /* 40 bits */
#define BP_LN2_LO -1.72394445256148347731635e-13
#define BP_EXP_MIN -708.3964185322641
#endif
#undef BP_LOG2E
#define BP_LOG2E ((BP_REAL)1.44269504088896340735992)

BP_INLINE BP_BITS BP_NAME(to_bits)(BP_REAL x) {
    BP_BITS bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

BP_INLINE BP_REAL BP_NAME(from_bits)(BP_BITS bits) {
    BP_REAL x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* 2^k for a shifted k: the sum of BP_ROUND and an integer in the range of normal exponents. */
BP_INLINE BP_REAL BP_NAME(power_of_two)(BP_REAL shifted) {
    return BP_NAME(from_bits)((BP_NAME(to_bits)(shifted) + BP_BIAS) << BP_MANTISSA);
}

/* e^r - 1 for |r| <= ln(2) / 2, as r + r^2 Q(r). Relative error of the fit 2^-26 / 2^-61. */
BP_INLINE BP_REAL BP_NAME(expm1_reduced)(BP_REAL r) {
#if BP_F32
    BP_REAL q = 0.001388251f;
    q = q * r + 0.00836658f;
    q = q * r + 0.0416672f;
    q = q * r + 0.16666543f;
    q = q * r + 0.49999997f;
#else
    BP_REAL q = 2.0875327477332383e-09;
    q = q * r + 2.510908138049883e-08;
    q = q * r + 2.755740294317467e-07;
    q = q * r + 2.7557244104240145e-06;
    q = q * r + 2.4801587174080584e-05;
    q = q * r + 0.00019841269886207896;
    q = q * r + 0.0013888888888962901;
    q = q * r + 0.008333333333321608;
    q = q * r + 0.041666666666666505;
    q = q * r + 0.16666666666666677;
    q = q * r + 0.5;
#endif
    return r + r * r * q;
}

/* e^x, all x. 2^k is applied in two halves, so that overflow and subnormal results come out as they should. */
BP_INLINE BP_REAL BP_NAME(v_exp)(BP_REAL x) {
    const BP_REAL lo = BP_F32 ? (BP_REAL)-104 : (BP_REAL)-746, hi = BP_F32 ? (BP_REAL)89 : (BP_REAL)710;
    x = x < lo ? lo : x;
    x = x > hi ? hi : x;
    const BP_REAL k = (x * BP_LOG2E + BP_ROUND) - BP_ROUND;
    const BP_REAL p = 1 + BP_NAME(expm1_reduced)((x - k * BP_LN2_HI) - k * BP_LN2_LO);
    const BP_REAL half = k * (BP_REAL)0.5 + BP_ROUND;
    const BP_REAL rest = (k - (half - BP_ROUND)) + BP_ROUND;
    return p * BP_NAME(power_of_two)(half) * BP_NAME(power_of_two)(rest);
}

/* e^x for x <= 88 (float) or 709 (double); results below the smallest normal number are 0. */
BP_INLINE BP_REAL BP_NAME(v_exp_ftz)(BP_REAL x) {
    const BP_REAL c = x < BP_EXP_MIN ? BP_EXP_MIN : x;
    const BP_REAL shifted = c * BP_LOG2E + BP_ROUND, k = shifted - BP_ROUND;
    const BP_REAL p = 1 + BP_NAME(expm1_reduced)((c - k * BP_LN2_HI) - k * BP_LN2_LO);
    return x < BP_EXP_MIN ? 0 : p * BP_NAME(power_of_two)(shifted);
}

/* e^x - 1 for x <= 0. */
BP_INLINE BP_REAL BP_NAME(v_expm1_neg)(BP_REAL x) {
    const BP_REAL lo = BP_F32 ? (BP_REAL)-18 : (BP_REAL)-38; /* -1 to the last bit from here on */
    const BP_REAL c = x < lo ? lo : x;
    const BP_REAL shifted = c * BP_LOG2E + BP_ROUND, k = shifted - BP_ROUND;
    const BP_REAL p = BP_NAME(expm1_reduced)((c - k * BP_LN2_HI) - k * BP_LN2_LO);
    const BP_REAL scale = BP_NAME(power_of_two)(shifted);
    return scale * p + (scale - 1);
}

/* log x: x = 2^k m with m in [sqrt(1/2), sqrt(2)), f = m - 1, s = f / (2 + f), log m = f - f^2/2 + s (f^2/2 + s^2 P(s^2)).
 * Relative error of the fit 2^-37 / 2^-66. */
BP_INLINE BP_REAL BP_NAME(v_log)(BP_REAL x) {
#if BP_F32
    const BP_BITS root = 0x3f3504f3u, one = 0x3f800000u, mask = 0x007fffffu;
    const BP_REAL smallest = 1.17549435e-38f, up = 33554432.0f, down = 25.0f, exponent = 8388608.0f;
#else
    const BP_BITS root = 0x3fe6a09e667f3bcdu, one = 0x3ff0000000000000u, mask = 0x000fffffffffffffu;
    const BP_REAL smallest = 2.2250738585072014e-308, up = 18014398509481984.0, down = 54.0, exponent = 4503599627370496.0;
#endif
    const BP_REAL scaled = x < smallest ? x * up : x;
    const BP_BITS u = BP_NAME(to_bits)(scaled) + (one - root);
    /* k + BP_BIAS is a small positive integer: put it into the low bits of 2^BP_MANTISSA and take that away again. */
    const BP_REAL biased = BP_NAME(from_bits)(BP_NAME(to_bits)(exponent) | (u >> BP_MANTISSA));
    const BP_REAL k = (biased - (exponent + BP_BIAS)) - (x < smallest ? down : 0);
    const BP_REAL f = BP_NAME(from_bits)((u & mask) + root) - 1;
    const BP_REAL s = f / (2 + f), z = s * s, half = (BP_REAL)0.5 * f * f;
#if BP_F32
    BP_REAL p = 0.23583569f;
    p = p * z + 0.28537238f;
    p = p * z + 0.40000337f;
    p = p * z + 0.6666666f;
#else
    BP_REAL p = 0.1325275503583308;
    p = p * z + 0.13249962010693844;
    p = p * z + 0.15387097651112774;
    p = p * z + 0.18181775508532855;
    p = p * z + 0.22222222648750176;
    p = p * z + 0.28571428569072965;
    p = p * z + 0.40000000000006286;
    p = p * z + 0.6666666666666666;
#endif
    const BP_REAL y = k * BP_LN2_HI - ((half - (s * (half + z * p) + k * BP_LN2_LO)) - f);
    const BP_REAL special = x == 0 ? -(BP_REAL)INFINITY : (BP_REAL)NAN;
    const BP_REAL finite = x > 0 ? y : special;
    return x == (BP_REAL)INFINITY ? x : finite;
}

/* log(1 + x): log of the rounded u = 1 + x, plus what the rounding lost. */
BP_INLINE BP_REAL BP_NAME(v_log1p)(BP_REAL x) {
    const BP_REAL u = 1 + x, lost = x - (u - 1);
    const BP_REAL safe = (u > 0) & (u < (BP_REAL)1e30) ? u : 1; /* at 0 and infinity log u is the answer */
    return BP_NAME(v_log)(u) + (safe == u ? lost / safe : 0);
}

/* log(1 + u) for u in [0, 1], as 2 atanh(s) with s = u / (2 + u). Relative error of the fit 2^-33 / 2^-69. */
BP_INLINE BP_REAL BP_NAME(v_log1p_unit)(BP_REAL u) {
    const BP_REAL s = u / (2 + u), z = s * s;
#if BP_F32
    BP_REAL p = 0.24300933f;
    p = p * z + 0.21427658f;
    p = p * z + 0.28616884f;
    p = p * z + 0.39998877f;
    p = p * z + 0.66666675f;
#else
    BP_REAL p = 0.16055869420521954;
    p = p * z + 0.05797663955886403;
    p = p * z + 0.10094222375136168;
    p = p * z + 0.10455690023542634;
    p = p * z + 0.11770529413707499;
    p = p * z + 0.1333300668150745;
    p = p * z + 0.1538462783102225;
    p = p * z + 0.18181817866496297;
    p = p * z + 0.22222222227298274;
    p = p * z + 0.28571428571380747;
    p = p * z + 0.40000000000000224;
    p = p * z + 0.6666666666666666;
#endif
    return 2 * s + s * z * p;
}

/* tanh x = -t / (t + 2) with t = e^(-2|x|) - 1: one formula for all x, accurate near 0 because t is. */
BP_INLINE BP_REAL BP_NAME(v_tanh)(BP_REAL x) {
    const BP_REAL t = BP_NAME(v_expm1_neg)(-2 * BP_ABS(x));
    return BP_COPYSIGN(t / (t + 2), x);
}

/* 1 / (1 + e^-x), from e^-|x|, which cannot overflow. */
BP_INLINE BP_REAL BP_NAME(v_sigmoid)(BP_REAL x) {
    const BP_REAL e = BP_NAME(v_exp_ftz)(-BP_ABS(x));
    return (x < 0 ? e : 1) / (1 + e);
}

/* log(1 + e^x) */
BP_INLINE BP_REAL BP_NAME(v_softplus)(BP_REAL x) {
    return (x < 0 ? 0 : x) + BP_NAME(v_log1p_unit)(BP_NAME(v_exp_ftz)(-BP_ABS(x)));
}

#if BP_F32
/* The normal distribution's upper tail over its kernel, Phi(-a) e^(a^2/2) for a >= 0, in t = 1 / (1 + 0.26 a).
 * Relative error 2^-28 (1 + a^2/2). */
BP_INLINE float BP_NAME(normal_tail)(float a) {
    const float t = 1.0f / (1.0f + 0.26f * a);
    float r = 0.031947397f;
    r = r * t - 0.15963446f;
    r = r * t + 0.2650697f;
    r = r * t - 0.1658537f;
    r = r * t + 0.17074797f;
    r = r * t + 0.047096007f;
    r = r * t + 0.10396439f;
    r = r * t + 0.10289743f;
    r = r * t + 0.10376528f;
    return r * t;
}
#endif

/* The normal distribution function, given e = e^(-x^2/2). */
BP_INLINE BP_REAL BP_NAME(v_normal_cdf)(BP_REAL x, BP_REAL e) {
#if BP_F32
    const float tail = e * BP_NAME(normal_tail)(fabsf(x));
    return x < 0 ? tail : 1.0f - tail;
#else
    (void)e;
    return 0.5 * erfc(x * -0.70710678118654752440);
#endif
}

/* erf x: a polynomial in x^2 near 0 (relative error of the fit 2^-26), 1 - 2 Phi(-sqrt(2) |x|) beyond. */
BP_INLINE BP_REAL BP_NAME(v_erf)(BP_REAL x) {
#if BP_F32
    const float a = fabsf(x), z = x * x;
    float p = -0.0006115607f;
    p = p * z + 0.0050165844f;
    p = p * z - 0.026781842f;
    p = p * z + 0.11282216f;
    p = p * z - 0.3761253f;
    p = p * z + 0.12837915f;
    const float tail = 2.0f * BP_NAME(v_exp_ftz)(-z) * BP_NAME(normal_tail)(1.41421356f * a);
    return a < 0.88f ? x + x * p : copysignf(1.0f - tail, x);
#else
    return erf(x);
#endif
}

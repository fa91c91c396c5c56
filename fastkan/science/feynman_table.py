"""The equations of the Feynman Symbolic Regression Database: 100 from Feynman's lectures and 20 from other textbooks.

Each formula is written once, with exp, sqrt, ..., pi as arguments: SymPy's give expressions, torch's give functions.
Numbers, names (the equation numbers of the lectures) and ranges are pykan's.

Source: Udrescu and Tegmark, AI Feynman (arXiv 1905.11481), tables 4 to 6.
"""

import math

UNIT, BOTH, SOME, TURN = (0, 1), (-1, 1), (0.5, 2), (0, 2 * math.pi)
HALF_TURN = (0.1 * math.pi, 0.9 * math.pi)


def equations(exp, sqrt, log, sin, cos, tanh, asin, acos, sinc, pi) -> list[tuple]:
    """Rows (name, formula, ranges of its arguments), by number; the arguments' names are those of the variables.

    sinc(z) is sin(z) / z. Row 0 is pykan's "test".
    """
    return [
        ("test", lambda x, y: (x + y) * sin(exp(2 * y)), [BOTH] * 2),
        ("I.6.20a", lambda theta: exp(-(theta**2) / 2) / sqrt(2 * pi), [(-3, 3)]),
        ("I.6.20", lambda theta, sigma: exp(-(theta**2) / (2 * sigma**2)) / sqrt(2 * pi * sigma**2), [BOTH, SOME]),
        (
            "I.6.20b",
            lambda theta, theta1, sigma: exp(-((theta - theta1) ** 2) / (2 * sigma**2)) / sqrt(2 * pi * sigma**2),
            [(-1.5, 1.5), (-1.5, 1.5), SOME],
        ),
        ("I.8.14", lambda x1, x2, y1, y2: sqrt((x2 - x1) ** 2 + (y2 - y1) ** 2), [BOTH] * 4),
        (
            "I.9.18",
            lambda G, m1, m2, x1, x2, y1, y2, z1, z2: (
                G * m1 * m2 / ((x2 - x1) ** 2 + (y2 - y1) ** 2 + (z2 - z1) ** 2)
            ),
            [BOTH] * 3 + [(-1, -0.5), (0.5, 1)] * 3,
        ),
        ("I.10.7", lambda m0, v, c: m0 / sqrt(1 - v**2 / c**2), [UNIT, UNIT, (1, 2)]),
        ("I.11.19", lambda x1, y1, x2, y2, x3, y3: x1 * y1 + x2 * y2 + x3 * y3, [BOTH] * 6),
        ("I.12.1", lambda mu, N_n: mu * N_n, [BOTH] * 2),
        ("I.12.2", lambda q1, q2, epsilon, r: q1 * q2 / (4 * pi * epsilon * r**2), [BOTH, BOTH, SOME, SOME]),
        ("I.12.4", lambda q1, epsilon, r: q1 / (4 * pi * epsilon * r**2), [BOTH, SOME, SOME]),
        ("I.12.5", lambda q2, E_f: q2 * E_f, [BOTH] * 2),
        ("I.12.11", lambda q, E_f, B, v, theta: q * (E_f + B * v * sin(theta)), [BOTH] * 4 + [TURN]),
        ("I.13.4", lambda m, v, u, w: m * (v**2 + u**2 + w**2) / 2, [BOTH] * 4),
        ("I.13.12", lambda G, m1, m2, r1, r2: G * m1 * m2 * (1 / r2 - 1 / r1), [UNIT] * 3 + [SOME] * 2),
        ("I.14.3", lambda m, g, z: m * g * z, [UNIT, UNIT, BOTH]),
        ("I.14.4", lambda k_s, x: k_s * x**2 / 2, [UNIT, BOTH]),
        ("I.15.3x", lambda x, u, t, c: (x - u * t) / sqrt(1 - u**2 / c**2), [BOTH] * 3 + [(1, 2)]),
        ("I.15.3t", lambda t, u, x, c: (t - u * x / c**2) / sqrt(1 - u**2 / c**2), [BOTH] * 3 + [(1, 2)]),
        ("I.15.10", lambda m0, v, c: m0 * v / sqrt(1 - v**2 / c**2), [BOTH, (-0.9, 0.9), (1.1, 2)]),
        ("I.16.6", lambda u, v, c: (u + v) / (1 + u * v / c**2), [(-0.8, 0.8), (-0.8, 0.8), (1, 2)]),
        ("I.18.4", lambda m1, r1, m2, r2: (m1 * r1 + m2 * r2) / (m1 + m2), [(0.5, 1), BOTH] * 2),
        ("I.18.12", lambda r, F, theta: r * F * sin(theta), [BOTH, BOTH, TURN]),
        ("I.18.14", lambda m, r, v, theta: m * r * v * sin(theta), [BOTH] * 3 + [TURN]),
        ("I.24.6", lambda m, omega, omega_0, x: m * (omega**2 + omega_0**2) * x**2 / 4, [UNIT] + [BOTH] * 3),
        ("I.25.13", lambda q, C: q / C, [BOTH, SOME]),
        ("I.26.2", lambda n, theta2: asin(n * sin(theta2)), [(0, 0.99), TURN]),
        ("I.27.6", lambda d1, d2, n: 1 / (1 / d1 + n / d2), [SOME, (1, 2), SOME]),
        ("I.29.4", lambda omega, c: omega / c, [UNIT, SOME]),
        (
            "I.29.16",
            lambda x1, x2, theta1, theta2: sqrt(x1**2 + x2**2 - 2 * x1 * x2 * cos(theta1 - theta2)),
            [BOTH, BOTH, TURN, TURN],
        ),
        (
            "I.30.3",
            lambda I_0, n, theta: I_0 * sin(n * theta / 2) ** 2 / sin(theta / 2) ** 2,
            [UNIT, (0, 4), (0.4 * math.pi, 1.6 * math.pi)],
        ),
        ("I.30.5", lambda lambda_, n, d: asin(lambda_ / (n * d)), [BOTH, (1, 1.5), (1, 1.5)]),
        ("I.32.5", lambda q, a, epsilon, c: q**2 * a**2 / (6 * pi * epsilon * c**3), [BOTH, BOTH, SOME, SOME]),
        (
            "I.32.17",
            lambda epsilon, c, E_f, r, omega, omega_0: (
                (epsilon * c * E_f**2 / 2) * (8 * pi * r**2 / 3) * (omega**4 / (omega**2 - omega_0**2) ** 2)
            ),
            [UNIT, UNIT, BOTH, UNIT, UNIT, (1, 2)],
        ),
        ("I.34.8", lambda q, V, B, p: q * V * B / p, [BOTH] * 3 + [SOME]),
        ("I.34.10", lambda omega_0, v, c: omega_0 / (1 - v / c), [UNIT, (0, 0.9), (1.1, 2)]),
        (
            "I.34.14",
            lambda omega_0, v, c: omega_0 * (1 + v / c) / sqrt(1 - v**2 / c**2),
            [UNIT, (-0.9, 0.9), (1.1, 2)],
        ),
        ("I.34.27", lambda hbar, omega: hbar * omega, [BOTH] * 2),
        ("I.37.4", lambda I_1, I_2, delta: I_1 + I_2 + 2 * sqrt(I_1 * I_2) * cos(delta), [(0.1, 1), (0.1, 1), TURN]),
        ("I.38.12", lambda epsilon, hbar, m, q: 4 * pi * epsilon * hbar**2 / (m * q**2), [UNIT, UNIT, SOME, SOME]),
        ("I.39.10", lambda p_F, V: 3 * p_F * V / 2, [UNIT] * 2),
        ("I.39.11", lambda gamma, p_F, V: p_F * V / (gamma - 1), [(1.5, 3), UNIT, UNIT]),
        ("I.39.22", lambda n, k_b, T, V: n * k_b * T / V, [UNIT] * 3 + [SOME]),
        (
            "I.40.1",
            lambda n_0, m, g, x, k_b, T: n_0 * exp(-m * g * x / (k_b * T)),
            [UNIT, BOTH, BOTH, BOTH, (1, 2), (1, 2)],
        ),
        (
            "I.41.16",
            lambda hbar, omega, c, k_b, T: (
                hbar * omega**3 / (pi**2 * c**2 * (exp(hbar * omega / (k_b * T)) - 1))
            ),
            [(0.5, 1), (0.5, 1), SOME, SOME, SOME],
        ),
        ("I.43.16", lambda mu, q, V_e, d: mu * q * V_e / d, [UNIT] * 3 + [SOME]),
        ("I.43.31", lambda mu, k_b, T: mu * k_b * T, [UNIT] * 3),
        ("I.43.43", lambda gamma, k_b, v, A: k_b * v / A / (gamma - 1), [(1.5, 3), UNIT, UNIT, SOME]),
        ("I.44.4", lambda n, k_b, T, V_1, V_2: n * k_b * T * log(V_2 / V_1), [UNIT] * 3 + [SOME] * 2),
        ("I.47.23", lambda gamma, p, rho: sqrt(gamma * p / rho), [(0.1, 1), (0.1, 1), SOME]),
        ("I.48.20", lambda m, v, c: m * c**2 / sqrt(1 - v**2 / c**2), [UNIT, (-0.9, 0.9), (1.1, 2)]),
        (
            "I.50.26",
            lambda x_1, alpha, omega, t: x_1 * (cos(omega * t) + alpha * cos(omega * t) ** 2),
            [UNIT, UNIT, TURN, UNIT],
        ),
        ("II.2.42", lambda kappa, T_1, T_2, A, d: kappa * (T_2 - T_1) * A / d, [UNIT] * 4 + [SOME]),
        ("II.3.24", lambda P, r: P / (4 * pi * r**2), [UNIT, SOME]),
        ("II.4.23", lambda q, epsilon, r: q / (4 * pi * epsilon * r), [UNIT, SOME, SOME]),
        (
            "II.6.11",
            lambda epsilon, p_d, theta, r: p_d * cos(theta) / (4 * pi * epsilon * r**2),
            [SOME, UNIT, TURN, SOME],
        ),
        (
            "II.6.15a",
            lambda epsilon, p_d, z, x, y, r: 3 * p_d * z * sqrt(x**2 + y**2) / (4 * pi * epsilon * r**5),
            [SOME] + [UNIT] * 4 + [SOME],
        ),
        (
            "II.6.15b",
            lambda epsilon, p_d, r, theta: 3 * p_d * cos(theta) * sin(theta) / (4 * pi * epsilon * r**3),
            [SOME, UNIT, SOME, TURN],
        ),
        ("II.8.7", lambda q, epsilon, d: 3 * q**2 / (20 * pi * epsilon * d), [UNIT, SOME, SOME]),
        ("II.8.31", lambda epsilon, E_f: epsilon * E_f**2 / 2, [UNIT] * 2),
        ("II.10.9", lambda sigma, epsilon, chi: sigma / epsilon / (1 + chi), [UNIT, SOME, UNIT]),
        (
            "II.11.3",
            lambda q, E_f, m, omega_0, omega: q * E_f / (m * (omega_0**2 - omega**2)),
            [UNIT, UNIT, SOME, (1.5, 3), UNIT],
        ),
        (
            "II.11.17",
            lambda n_0, p_d, E_f, theta, k_b, T: n_0 * (1 + p_d * E_f * cos(theta) / (k_b * T)),
            [UNIT, BOTH, BOTH, TURN, SOME, SOME],
        ),
        ("II.11.20", lambda n, p_d, E_f, k_b, T: n * p_d**2 * E_f / (3 * k_b * T), [UNIT] * 3 + [SOME] * 2),
        (
            "II.11.27",
            lambda n, alpha, epsilon, E_f: n * alpha / (1 - n * alpha / 3) * epsilon * E_f,
            [UNIT, (0, 2), UNIT, UNIT],
        ),
        ("II.11.28", lambda n, alpha: 1 + n * alpha / (1 - n * alpha / 3), [UNIT, (0, 2)]),
        ("II.13.17", lambda epsilon, c, l, r: 2 * l / (4 * pi * epsilon * c**2 * r), [SOME, SOME, UNIT, SOME]),
        ("II.13.23", lambda rho, v, c: rho / sqrt(1 - v**2 / c**2), [UNIT, UNIT, (1, 2)]),
        ("II.13.34", lambda rho, v, c: rho * v / sqrt(1 - v**2 / c**2), [UNIT, UNIT, (1, 2)]),
        ("II.15.4", lambda mu_M, B, theta: -mu_M * B * cos(theta), [UNIT, UNIT, TURN]),
        ("II.15.5", lambda p_d, E_f, theta: -p_d * E_f * cos(theta), [UNIT, UNIT, TURN]),
        (
            "II.21.32",
            lambda q, epsilon, r, v, c: q / (4 * pi * epsilon * r * (1 - v / c)),
            [UNIT, SOME, SOME, UNIT, (1, 2)],
        ),
        (
            "II.24.17",
            lambda omega, c, d: sqrt(omega**2 / c**2 - pi**2 / d**2),
            [(1, 1.5), (0.75, 1), (math.pi, 1.5 * math.pi)],
        ),
        ("II.27.16", lambda epsilon, c, E_f: epsilon * c * E_f**2, [UNIT, UNIT, BOTH]),
        ("II.27.18", lambda epsilon, E_f: epsilon * E_f**2, [UNIT, BOTH]),
        ("II.34.2a", lambda q, v, r: q * v / (2 * pi * r), [UNIT, UNIT, SOME]),
        ("II.34.2", lambda q, v, r: q * v * r / 2, [UNIT] * 3),
        ("II.34.11", lambda g, q, B, m: g * q * B / (2 * m), [UNIT] * 3 + [SOME]),
        ("II.34.29a", lambda q, h, m: q * h / (4 * pi * m), [UNIT, UNIT, SOME]),
        ("II.34.29b", lambda g, mu, B, J, hbar: g * mu * B * J / hbar, [UNIT] * 4 + [SOME]),
        (
            "II.35.18",
            lambda n0, mu, B, k_b, T: n0 / (exp(mu * B / (k_b * T)) + exp(-mu * B / (k_b * T))),
            [UNIT] * 3 + [SOME] * 2,
        ),
        ("II.35.21", lambda n, mu, B, k_b, T: n * mu * tanh(mu * B / (k_b * T)), [UNIT] * 3 + [SOME] * 2),
        (
            "II.36.38",
            lambda mu, B, k_b, T, alpha, M, epsilon, c: (
                mu * B / (k_b * T) + mu * alpha * M / (epsilon * c**2 * k_b * T)
            ),
            [UNIT, UNIT, SOME, SOME] * 2,
        ),
        ("II.37.1", lambda mu, chi, B: mu * (1 + chi) * B, [UNIT] * 3),
        ("II.38.3", lambda Y, A, x, d: Y * A * x / d, [UNIT] * 3 + [SOME]),
        ("II.38.14", lambda Y, sigma: Y / (2 * (1 + sigma)), [UNIT] * 2),
        (
            "III.4.32",
            lambda hbar, omega, k_b, T: 1 / (exp(hbar * omega / (k_b * T)) - 1),
            [(0.5, 1), (0.5, 1), SOME, SOME],
        ),
        (
            "III.4.33",
            lambda hbar, omega, k_b, T: hbar * omega / (exp(hbar * omega / (k_b * T)) - 1),
            [UNIT, UNIT, SOME, SOME],
        ),
        ("III.7.38", lambda mu, B, hbar: 2 * mu * B / hbar, [UNIT, UNIT, SOME]),
        ("III.8.54", lambda E, t, hbar: sin(E * t / hbar) ** 2, [TURN, UNIT, SOME]),
        (
            "III.9.52",
            lambda p_d, E_f, t, hbar, omega, omega_0: p_d * E_f * t / hbar * sinc((omega - omega_0) * t / 2) ** 2,
            [UNIT] * 3 + [SOME] + [(0, math.pi)] * 2,
        ),
        ("III.10.19", lambda mu, B_x, B_y, B_z: mu * sqrt(B_x**2 + B_y**2 + B_z**2), [UNIT] * 4),
        ("III.12.43", lambda n, hbar: n * hbar, [UNIT] * 2),
        ("III.13.18", lambda E, d, k, hbar: 2 * E * d**2 * k / hbar, [UNIT] * 3 + [SOME]),
        (
            "III.14.14",
            lambda I_0, q, V_e, k_b, T: I_0 * (exp(q * V_e / (k_b * T)) - 1),
            [UNIT] * 3 + [SOME] * 2,
        ),
        ("III.15.12", lambda U, k, d: 2 * U * (1 - cos(k * d)), [UNIT, TURN, UNIT]),
        ("III.15.14", lambda hbar, E, d: hbar**2 / (2 * E * d**2), [UNIT, SOME, SOME]),
        ("III.15.27", lambda alpha, n, d: 2 * pi * alpha / (n * d), [UNIT, SOME, SOME]),
        ("III.17.37", lambda beta, alpha, theta: beta * (1 + alpha * cos(theta)), [UNIT, UNIT, TURN]),
        (
            "III.19.51",
            lambda m, q, epsilon, hbar, n: -m * q**4 / (2 * (4 * pi * epsilon) ** 2 * hbar**2 * n**2),
            [UNIT] * 2 + [SOME] * 3,
        ),
        ("III.21.20", lambda rho, q, A, m: -rho * q * A / m, [UNIT] * 3 + [SOME]),
        (
            "Rutherford scattering",
            lambda Z_1, Z_2, alpha, hbar, c, E, theta: (
                (Z_1 * Z_2 * alpha * hbar * c / (4 * E * sin(theta / 2) ** 2)) ** 2
            ),
            [UNIT] * 5 + [SOME, HALF_TURN],
        ),
        (
            "Friedmann equation",
            lambda G, rho, k_f, c, a_f: sqrt(8 * pi * G * rho / 3 - k_f * c**2 / a_f**2),
            [(1, 2), (1, 2), UNIT, UNIT, (1, 2)],
        ),
        (
            "Compton scattering",
            lambda E, m, c, theta: E / (1 + E / (m * c**2) * (1 - cos(theta))),
            [UNIT, SOME, SOME, TURN],
        ),
        (
            "Radiated gravitational wave power",
            lambda G, c, m_1, m_2, r: -32 * G**4 * (m_1 * m_2) ** 2 * (m_1 + m_2) / (5 * c**5 * r**5),
            [UNIT, SOME, UNIT, UNIT, SOME],
        ),
        (
            "Relativistic aberration",
            lambda theta_2, v, c: acos((cos(theta_2) - v / c) / (1 - v / c * cos(theta_2))),
            [(0, math.pi), UNIT, (1, 2)],
        ),
        (
            "N-slit diffraction",
            lambda I_0, alpha, delta, N: (
                I_0 * (sin(alpha / 2) / (alpha / 2) * sin(N * delta / 2) / sin(delta / 2)) ** 2
            ),
            [UNIT, HALF_TURN, HALF_TURN, (0.5, 1)],
        ),
        (
            "Goldstein 3.16",
            lambda m, E, U, L, r: sqrt(2 / m * (E - U - L**2 / (2 * m * r**2))),
            [(1, 2), (2, 3), UNIT, UNIT, (1, 2)],
        ),
        (
            "Goldstein 3.55",
            lambda m, k_G, L, E, theta_1, theta_2: (
                m * k_G / L**2 * (1 + sqrt(1 + 2 * E * L**2 / (m * k_G**2)) * cos(theta_1 - theta_2))
            ),
            [SOME, SOME, SOME, UNIT, TURN, TURN],
        ),
        (
            "Goldstein 3.64 (ellipse)",
            lambda d, alpha, theta_1, theta_2: d * (1 - alpha**2) / (1 + alpha * cos(theta_2 - theta_1)),
            [UNIT, (0, 0.9), TURN, TURN],
        ),
        (
            "Goldstein 3.74 (Kepler)",
            lambda d, G, m_1, m_2: 2 * pi * d * sqrt(d) / sqrt(G * (m_1 + m_2)),
            [UNIT, SOME, SOME, SOME],
        ),
        (
            "Goldstein 3.99",
            lambda epsilon, E, L, m, Z_1, Z_2, q: (
                sqrt(1 + 2 * epsilon**2 * E * L**2 / (m * (Z_1 * Z_2 * q**2) ** 2))
            ),
            [UNIT] * 3 + [SOME] * 4,
        ),
        (
            "Goldstein 8.56",
            lambda p, q, A, c, m, V_e: sqrt((p - q * A) ** 2 * c**2 + m**2 * c**4) + q * V_e,
            [UNIT] * 6,
        ),
        (
            "Goldstein 12.80",
            lambda m, p, omega, x, alpha, y: (p**2 + m**2 * omega**2 * x**2 * (1 + alpha * x / y)) / (2 * m),
            [SOME] + [UNIT] * 4 + [SOME],
        ),
        (
            "Jackson 2.11",
            lambda q, epsilon, y, V_e, d: (
                q / (4 * pi * epsilon * y**2) * (4 * pi * epsilon * V_e * d - q * d * y**3 / (y**2 - d**2) ** 2)
            ),
            [UNIT, SOME, (1, 2), UNIT, UNIT],
        ),
        (
            "Jackson 3.45",
            lambda q, r, d, alpha: q / sqrt(r**2 + d**2 - 2 * d * r * cos(alpha)),
            [UNIT, UNIT, UNIT, TURN],
        ),
        (
            "Jackson 4.60",
            lambda E_f, theta, alpha, d, r: E_f * cos(theta) * ((alpha - 1) / (alpha + 2) * d**3 / r**2 - r),
            [UNIT, TURN, (0, 2), UNIT, SOME],
        ),
        (
            "Jackson 11.38 (Doppler)",
            lambda omega, v, c, theta: sqrt(1 - v**2 / c**2) / (1 + v / c * cos(theta)) * omega,
            [UNIT, UNIT, (1, 2), TURN],
        ),
        (
            "Weinberg 15.2.1",
            lambda G, c, k_f, a_f, H: 3 / (8 * pi * G) * (c**2 * k_f / a_f**2 + H**2),
            [SOME, UNIT, UNIT, SOME, UNIT],
        ),
        (
            "Weinberg 15.2.2",
            lambda G, c, k_f, a_f, H, alpha: (
                -1 / (8 * pi * G) * (c**4 * k_f / a_f**2 + c**2 * H**2 * (1 - 2 * alpha))
            ),
            [SOME, UNIT, UNIT, SOME, UNIT, UNIT],
        ),
        (
            "Schwarz 13.132 (Klein-Nishina)",
            lambda alpha, hbar, m, c, omega_0, omega, theta: (
                pi * alpha**2 * hbar**2 / (m**2 * c**2)
                * (omega_0 / omega) ** 2 * (omega_0 / omega + omega / omega_0 - sin(theta) ** 2)
            ),
            [UNIT, UNIT, SOME, SOME, SOME, SOME, TURN],
        ),
    ]  # fmt: skip


# Other names of some: pykan's where they are not the lectures' numbers, and the public list's, which lost a zero.
ALIASES = {
    "I.8.4": "I.8.14",
    "I.18.16": "I.18.14",
    "I.10.9": "II.10.9",
    "Rutherforld scattering": "Rutherford scattering",
    "Friedman equation": "Friedmann equation",
    "I.6.2a": "I.6.20a",
    "I.6.2": "I.6.20",
    "I.6.2b": "I.6.20b",
    "I.15.1": "I.15.10",
    "I.34.1": "I.34.10",
    "I.39.1": "I.39.10",
    "I.48.2": "I.48.20",
}

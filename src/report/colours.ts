/**
 * Colours of curves, on light and on dark: far apart in lightness too, so that they differ under the common colour-vision
 * deficiencies, and 3:1 or more against the paper. Every curve has a shape of its own beside.
 */
export const LIGHT = ["#1f55b5", "#c4710a", "#00946a", "#a865a8", "#6b3d05", "#717b88"] as const;
export const DARK = ["#5aa5f0", "#e8703a", "#3fe08f", "#d67d97", "#e2dc2d", "#aebccb"] as const;

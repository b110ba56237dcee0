/**
 * For editors only: asc never reads this file. The build aliases `real` to f64 or f32 (asconfig.json, "use").
 */
declare type real = f64;
/** Converts a number to `real`, as f64() or f32() would. */
declare function real(value: any): real;

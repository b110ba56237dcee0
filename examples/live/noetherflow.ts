/** The library. In your own project this is: export * from "noetherflow"; */
export * from "../../src/index.ts";

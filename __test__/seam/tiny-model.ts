export { CHATML, tinyModel } from "../../ts/testing/tiny-model.ts";

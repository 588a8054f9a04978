import solid from "vite-plugin-solid";
import { defineConfig } from "vitest/config";

export default defineConfig({
  plugins: [solid()],
  test: {
    environment: "jsdom",
    include: ["tests/renderer/**/*.test.{ts,tsx}"],
    testTimeout: 20_000,
  },
});
